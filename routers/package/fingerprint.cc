#include "routers/package/fingerprint.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "routers/package/router_spec.h"
#include "routers/package/sha256.h"
#include "routers/package/tensor_values.h"

namespace penstock {
namespace {

constexpr std::string_view kZero("\0", 1);

}  // namespace

std::string PackageFingerprint(std::string_view kind, const Hyper& hyper,
                               const std::map<std::string, TensorView, std::less<>>& tensors) {
  Sha256 hash;
  hash.Update(kind);
  hash.Update(kZero);
  hash.Update(HyperJson(hyper));
  hash.Update(kZero);
  for (const auto& [name, tensor] : tensors) {
    hash.Update(name);
    hash.Update(kZero);
    hash.Update(Name(tensor.dtype));
    hash.Update(kZero);
    hash.UpdateU64(tensor.shape.size());
    for (const std::int64_t extent : tensor.shape) hash.UpdateU64(extent);
    hash.Update(tensor.bytes);
  }
  return hash.Hex();
}

absl::StatusOr<std::string> BaseFingerprint(const RouterShape& shape,
                                            std::int64_t num_hidden_layers,
                                            std::span<const NamedGate> gates) {
  if (gates.size() != shape.layers.size()) {
    return absl::InvalidArgumentError(absl::StrCat("gates: got ", gates.size(), ", want ",
                                                   shape.layers.size(), ", one per sparse layer"));
  }
  Sha256 hash;
  for (const std::int64_t number :
       {shape.d, shape.experts, shape.top_k, num_hidden_layers, shape.vocab_size}) {
    hash.UpdateU64(number);
  }
  const std::vector<std::int64_t> wanted = {shape.experts, shape.d};
  std::vector<float> values(shape.experts * shape.d);
  for (const NamedGate& gate : gates) {
    if (!IsFloat(gate.weight.dtype) || gate.weight.shape != wanted) {
      return absl::InvalidArgumentError(absl::StrCat(
          gate.name, ": got ", std::string(Name(gate.weight.dtype)), ShapeString(gate.weight.shape),
          ", want ", ShapeString(wanted), " of F32, BF16 or F16"));
    }
    WidenTo(gate.weight, values);
    hash.Update(gate.name);
    hash.Update(kZero);
    hash.Update(std::as_bytes(std::span<const float>(values)));
  }
  return hash.Hex();
}

}  // namespace penstock
