// A router kind with its hyperparameters, at one model's shape: what tensors it needs, and what it
// costs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "routers/package/router_kind.h"

namespace penstock {

// A value. The kind is borrowed: kinds live in a RouterCatalogue, to the end of the process.
class RouterSpec {
 public:
  // `hyper` must hold just the kind's keys, each in range. INVALID_ARGUMENT names the key
  // ("hyper.heads" or "layers"), what was got and what is wanted.
  static absl::StatusOr<RouterSpec> Create(const RouterKind& kind, Hyper hyper, RouterShape shape);

  const RouterKind& kind() const { return *kind_; }
  const std::string& name() const { return kind_->name; }
  const std::string& summary() const { return kind_->summary; }
  const Hyper& hyper() const { return hyper_; }
  const RouterShape& shape() const { return shape_; }

  // A hyperparameter that the kind has.
  std::int64_t Number(std::string_view hyper_name) const;
  const std::string& Word(std::string_view hyper_name) const;

  // Of each sparse layer.
  std::vector<TensorRule> Tensors() const { return kind_->tensors(*this); }
  // Learned numbers per layer: the elements of the float tensors.
  std::int64_t ParametersPerLayer() const;
  // Per token and layer, as RouterKind::flops counts.
  std::int64_t FlopsPerToken() const { return kind_->flops(*this); }

 private:
  RouterSpec(const RouterKind& kind, Hyper hyper, RouterShape shape)
      : kind_(&kind), hyper_(std::move(hyper)), shape_(std::move(shape)) {}

  const RouterKind* kind_;
  Hyper hyper_;
  RouterShape shape_;
};

// `overrides` with the kind's fallbacks for what it does not hold.
Hyper WithFallbacks(const RouterKind& kind, const RouterShape& shape, Hyper overrides);

// Compact JSON of `hyper`: keys in byte order, no spaces. The canonical form that
// package_fingerprint hashes.
std::string HyperJson(const Hyper& hyper);

// "12" or "\"tanh\"".
std::string HyperValueText(const HyperValue& value);

// "layers.{layer}.{name}": the tensor's name in router.safetensors.
std::string RouterTensorName(std::int64_t layer, std::string_view name);

}  // namespace penstock
