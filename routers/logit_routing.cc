#include "routers/logit_routing.h"

#include <utility>

#include "ATen/TensorOperators.h"
#include "ATen/core/grad_mode.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/isfinite.h"
#include "ATen/ops/softmax.h"
#include "ATen/ops/sort.h"
#include "ATen/ops/where.h"
#include "ATen/ops/zeros_like.h"
#include "kernels/softmax_top_k.h"
#include "torch/csrc/autograd/custom_function.h"

namespace penstock {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Routing Run(const at::Tensor& logits, std::int64_t top_k, bool normalize) {
  const at::Tensor dense = logits.contiguous();
  const std::int64_t rows = dense.size(0);
  const at::TensorOptions floats = dense.options().requires_grad(false);
  Routing routing{.experts = at::empty({rows, top_k}, floats.dtype(at::kInt)),
                  .weights = at::empty({rows, top_k}, floats),
                  .probabilities = at::empty({rows, dense.size(1)}, floats),
                  .finite = at::empty({rows}, floats.dtype(at::kBool)),
                  .logits = dense};
  SoftmaxTopKCpu({.logits = dense.const_data_ptr<float>(),
                  .rows = rows,
                  .experts = static_cast<int>(dense.size(1)),
                  .k = static_cast<int>(top_k),
                  .normalize = normalize,
                  .ids = routing.experts.mutable_data_ptr<std::int32_t>(),
                  .weights = routing.weights.mutable_data_ptr<float>(),
                  .probabilities = routing.probabilities.mutable_data_ptr<float>(),
                  .finite = routing.finite.mutable_data_ptr<bool>()});
  return routing;
}

class RoutingFunction : public torch::autograd::Function<RoutingFunction> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& logits,
                               std::int64_t top_k, bool normalize) {
    const Routing r = Run(logits, top_k, normalize);
    context->save_for_backward({r.probabilities, r.weights, r.experts, r.finite});
    context->mark_non_differentiable({r.experts, r.finite});
    context->saved_data["normalize"] = normalize;
    return {r.probabilities, r.weights, r.experts, r.finite};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor& p = saved[0];
    const at::Tensor& weights = saved[1];
    const at::Tensor ids = saved[2].to(at::kLong);
    at::Tensor of_p = gradients[0].defined() ? gradients[0] : at::zeros_like(p);
    if (gradients[1].defined()) {
      at::Tensor of_chosen = gradients[1];
      if (context->saved_data["normalize"].toBool()) {
        // w = p_S / Σ p_S.
        of_chosen = (of_chosen - (of_chosen * weights).sum(1, /*keepdim=*/true)) /
                    p.gather(1, ids).sum(1, /*keepdim=*/true);
      }
      of_p = of_p.scatter_add(1, ids, of_chosen);
    }
    const at::Tensor of_logits = p * (of_p - (p * of_p).sum(1, /*keepdim=*/true));
    // A row that is not finite has no part in the loss.
    return {of_logits.masked_fill(saved[3].logical_not().unsqueeze(1), 0.0), at::Tensor(),
            at::Tensor()};
  }
};

// The same in ATen, for other devices.
Routing RunElsewhere(const at::Tensor& logits, std::int64_t top_k, bool normalize) {
  const at::Tensor finite = at::isfinite(logits).all(1);
  const at::Tensor mask = finite.unsqueeze(1);
  const at::Tensor safe = at::where(mask, logits, at::zeros_like(logits));
  const at::Tensor p = at::softmax(safe, 1);
  const at::Tensor ids =
      std::get<1>(at::sort(safe.detach(), /*stable=*/true, /*dim=*/1, /*descending=*/true))
          .narrow(1, 0, top_k);
  at::Tensor weights = p.gather(1, ids);
  if (normalize) weights = weights / weights.sum(1, /*keepdim=*/true);
  return {.experts = ids.to(at::kInt),
          .weights = weights * mask,
          .probabilities = p * mask,
          .finite = finite,
          .logits = logits};
}

}  // namespace

Routing RouteByLogits(const at::Tensor& logits, std::int64_t top_k, bool normalize) {
  if (!logits.is_cpu()) return RunElsewhere(logits, top_k, normalize);
  if (!at::GradMode::is_enabled() || !logits.requires_grad()) return Run(logits, top_k, normalize);
  const variable_list r = RoutingFunction::apply(logits, top_k, normalize);
  return {
      .experts = r[2], .weights = r[1], .probabilities = r[0], .finite = r[3], .logits = logits};
}

Routing LogitRouter::Route(int layer, const at::Tensor& hidden,
                           const at::Tensor& /*token_ids*/) const {
  const RouterShape& shape = spec_.shape();
  TORCH_CHECK(layer >= 0 && layer < static_cast<int>(shape.layers.size()), "sparse layer ", layer,
              " of ", shape.layers.size());
  TORCH_CHECK(hidden.dim() == 2 && hidden.size(1) == shape.d, "hidden ", hidden.sizes(),
              ", want [rows, ", shape.d, "]");
  return RouteByLogits(Logits(layer, hidden), shape.top_k, shape.norm_topk_prob);
}

std::vector<at::Tensor> Prepared(const std::vector<RouterTensors>& layers, std::string_view name,
                                 const RouterOptions& options, at::ScalarType dtype) {
  std::vector<at::Tensor> prepared;
  for (const RouterTensors& tensors : layers) {
    const auto found = tensors.find(name);
    TORCH_CHECK(found != tensors.end(), "router tensor ", std::string(name), " is missing");
    prepared.push_back(found->second.to(options.device, dtype));
  }
  return prepared;
}

}  // namespace penstock
