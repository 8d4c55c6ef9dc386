// What all kinds that compute logits share: from logits to a decision, and the weights as they are
// kept.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "ATen/core/Tensor.h"
#include "routers/router.h"
#include "routers/router_registry.h"
#include "routers/routing.h"

namespace penstock {

// A router whose decision follows from logits over the experts.
class LogitRouter : public Router {
 public:
  const RouterSpec& spec() const final { return spec_; }
  Routing Route(int layer, const at::Tensor& hidden, const at::Tensor& token_ids) const final;

  // z of routers.md: [rows, E] fp32, from hidden [rows, d] in the model's dtype. Differentiable
  // with respect to `hidden` and to those of the router's tensors that require gradients.
  // Row-independent, to the bit.
  virtual at::Tensor Logits(int layer, const at::Tensor& hidden) const = 0;

 protected:
  explicit LogitRouter(RouterSpec spec) : spec_(std::move(spec)) {}

 private:
  RouterSpec spec_;
};

// Softmax, the k largest, their weights. logits: [rows, E] fp32. Differentiable: weights and
// probabilities.
Routing RouteByLogits(const at::Tensor& logits, std::int64_t top_k, bool normalize);

// One named tensor of every layer, cast to `dtype` and moved to the device. A tensor that is there
// already is shared.
std::vector<at::Tensor> Prepared(const std::vector<RouterTensors>& layers, std::string_view name,
                                 const RouterOptions& options, at::ScalarType dtype = at::kFloat);

}  // namespace penstock
