#include "routers/router_loading.h"

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "ATen/ops/empty.h"
#include "absl/strings/str_cat.h"
#include "c10/util/Exception.h"
#include "routers/package/router_start.h"

namespace penstock {
namespace {

at::ScalarType ScalarTypeOf(DType dtype) {
  if (dtype == DType::kI32) return at::kInt;
  if (dtype == DType::kBF16) return at::kBFloat16;
  return dtype == DType::kF16 ? at::kHalf : at::kFloat;
}

// A copy: views may lie at odd addresses, and in a file that is replaced.
at::Tensor CopyOf(const TensorView& view) {
  at::Tensor tensor = at::empty(view.shape, at::dtype(ScalarTypeOf(view.dtype)));
  if (!view.bytes.empty())
    std::memcpy(tensor.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  return tensor;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Router>> MakeRouter(const RouterPackage& package,
                                                         const RouterModel& model,
                                                         const RouterOptions& options) {
  if (options.dtype != at::kFloat && options.dtype != at::kBFloat16 && options.dtype != at::kHalf) {
    return absl::InvalidArgumentError(absl::StrCat("dtype: got ", c10::toString(options.dtype),
                                                   ", want Float, BFloat16 or Half"));
  }
  if (absl::Status s = CheckFitsModel(package, model); !s.ok()) return s;
  auto factory = RouterRegistry::Global().Factory(package.spec.name());
  if (!factory.ok()) return factory.status();
  auto spec = RouterSpec::Create(package.spec.kind(), package.spec.hyper(), model.shape);
  if (!spec.ok()) return spec.status();
  std::vector<RouterTensors> layers;
  for (const std::int64_t layer : model.shape.layers) {
    RouterTensors& tensors = layers.emplace_back();
    for (const TensorRule& rule : spec->Tensors()) {
      tensors[rule.name] = CopyOf(package.tensors.at(RouterTensorName(layer, rule.name)));
    }
  }
  try {
    return (*factory)(*std::move(spec), std::move(layers), options);
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for its tensors: ", error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    return absl::InternalError(absl::StrCat("LibTorch: ", error.what_without_backtrace()));
  }
}

absl::StatusOr<RouterPackage> CheckpointRouterPackage(const RouterModel& model,
                                                      std::span<const TensorView> gates) {
  const auto kind = RouterRegistry::Global().catalogue().Find(kCheckpointRouter);
  if (!kind.ok()) return kind.status();
  RouterStart start{.model = model, .gates = {gates.begin(), gates.end()}, .neutral = true};
  auto package = InitRouter(**kind, start);
  if (!package.ok()) return package.status();
  package->source = "the checkpoint's gates";
  return package;
}

}  // namespace penstock
