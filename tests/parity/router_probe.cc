// Routes rows by a router package, for the Python oracle:
//
//   router_probe PACKAGE_FOLDER IN.safetensors OUT.safetensors
//
// IN holds `hidden` [rows, d] in the model's dtype and `token_ids` [rows] I64, and in its metadata
// `norm_topk_prob` ("true" or "false") and `vocab_size`. OUT gets, per sparse layer i,
// `layers.{i}.experts`, `.weights`, `.probabilities`, `.finite` and, for kinds that compute them,
// `.logits`; in its metadata, `package_fingerprint`.
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <list>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "ATen/core/grad_mode.h"
#include "ATen/ops/empty.h"
#include "routers/logit_routing.h"
#include "routers/router_loading.h"
#include "routers/routing.h"

namespace penstock {
namespace {

at::Tensor ToTensor(const TensorView& view) {
  const std::map<DType, at::ScalarType> dtypes = {{DType::kF32, at::kFloat},
                                                  {DType::kBF16, at::kBFloat16},
                                                  {DType::kF16, at::kHalf},
                                                  {DType::kI64, at::kLong}};
  at::Tensor tensor = at::empty(view.shape, at::dtype(dtypes.at(view.dtype)));
  std::memcpy(tensor.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  return tensor;
}

TensorView ToView(const at::Tensor& tensor) {
  const std::map<at::ScalarType, DType> dtypes = {
      {at::kFloat, DType::kF32}, {at::kInt, DType::kI32}, {at::kBool, DType::kBool}};
  return {.dtype = dtypes.at(tensor.scalar_type()),
          .shape = tensor.sizes().vec(),
          .bytes = {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}};
}

absl::Status Route(const std::string& folder, const std::string& in, const std::string& out) {
  auto package = ReadRouterPackage(folder, RouterRegistry::Global().catalogue());
  if (!package.ok()) return package.status();
  auto file = SafetensorsFile::Open(in);
  if (!file.ok()) return file.status();
  const at::Tensor hidden = ToTensor((*file)->tensors().at("hidden"));
  const at::Tensor token_ids = ToTensor((*file)->tensors().at("token_ids"));
  RouterModel model{.shape = package->spec.shape(), .base_fingerprint = package->base_fingerprint};
  model.shape.norm_topk_prob = (*file)->metadata().at("norm_topk_prob") == "true";
  model.shape.vocab_size = std::stoll((*file)->metadata().at("vocab_size"));
  auto router = MakeRouter(*package, model, {.dtype = hidden.scalar_type()});
  if (!router.ok()) return router.status();

  std::list<at::Tensor> kept;
  std::vector<std::pair<std::string, TensorView>> tensors;
  const auto keep = [&](std::int64_t layer, const char* name, const at::Tensor& tensor) {
    tensors.emplace_back(RouterTensorName(layer, name),
                         ToView(kept.emplace_back(tensor.contiguous())));
  };
  for (std::size_t i = 0; i < model.shape.layers.size(); ++i) {
    const std::int64_t layer = model.shape.layers[i];
    const Routing r = (*router)->Route(static_cast<int>(i), hidden, token_ids);
    keep(layer, "experts", r.experts);
    keep(layer, "weights", r.weights);
    keep(layer, "probabilities", r.probabilities);
    keep(layer, "finite", r.finite);
    if (const auto* by_logits = dynamic_cast<const LogitRouter*>(router->get())) {
      keep(layer, "logits", by_logits->Logits(static_cast<int>(i), hidden));
    }
  }
  return WriteSafetensors(out, tensors, {{"package_fingerprint", PackageFingerprint(*package)}});
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: router_probe PACKAGE_FOLDER IN.safetensors OUT.safetensors\n";
    return 2;
  }
  const at::NoGradGuard no_gradients;
  const absl::Status status = penstock::Route(argv[1], argv[2], argv[3]);
  if (status.ok()) return EXIT_SUCCESS;
  std::cerr << status.message() << "\n";
  return EXIT_FAILURE;
}
