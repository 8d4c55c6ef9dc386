#include "routers/row_functions.h"

#include <cmath>
#include <string>
#include <vector>

#include "ATen/TensorOperators.h"
#include "ATen/core/grad_mode.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/empty_like.h"
#include "ATen/ops/gelu.h"
#include "ATen/ops/gelu_backward.h"
#include "ATen/ops/log_softmax.h"
#include "ATen/ops/logsumexp.h"
#include "ATen/ops/stack.h"
#include "kernels/head_mixture.h"
#include "routers/linear_rows.h"
#include "torch/csrc/autograd/custom_function.h"

namespace penstock {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool Records(const at::Tensor& x) { return at::GradMode::is_enabled() && x.requires_grad(); }

const char* Approximation(GeluForm form) { return form == GeluForm::kTanh ? "tanh" : "none"; }

at::Tensor RunGelu(const at::Tensor& x, GeluForm form) {
  const at::Tensor dense = x.contiguous();
  at::Tensor y = at::empty_like(dense);
  GeluCpu(dense.const_data_ptr<float>(), y.mutable_data_ptr<float>(), dense.numel(), form);
  return y;
}

class GeluFunction : public torch::autograd::Function<GeluFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, bool tanh) {
    context->save_for_backward({x});
    context->saved_data["tanh"] = tanh;
    return RunGelu(x, tanh ? GeluForm::kTanh : GeluForm::kErf);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const bool tanh = context->saved_data["tanh"].toBool();
    return {at::gelu_backward(gradients[0], context->get_saved_variables()[0],
                              Approximation(tanh ? GeluForm::kTanh : GeluForm::kErf)),
            at::Tensor()};
  }
};

at::Tensor RunHeadMixture(const at::Tensor& scores) {
  const at::Tensor dense = scores.contiguous();
  at::Tensor logits = at::empty({dense.size(0), dense.size(2)}, dense.options());
  HeadMixtureCpu({.scores = dense.const_data_ptr<float>(),
                  .rows = dense.size(0),
                  .heads = static_cast<int>(dense.size(1)),
                  .experts = static_cast<int>(dense.size(2)),
                  .logits = logits.mutable_data_ptr<float>()});
  return logits;
}

class HeadMixtureFunction : public torch::autograd::Function<HeadMixtureFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& scores) {
    at::Tensor logits = RunHeadMixture(scores);
    context->save_for_backward({scores, logits});
    return logits;
  }

  // With P_j = softmax(scores_j) and r_j = P_j / Σ_i P_i: the share of head j in the mixture,
  // ∂z_e / ∂scores_jf = r_je (δ_ef − P_jf).
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const at::Tensor log_p = at::log_softmax(saved[0], -1);  // [rows, heads, E]
    const double log_heads = std::log(static_cast<double>(saved[0].size(1)));
    const at::Tensor share = (log_p - (saved[1] + log_heads).unsqueeze(1)).exp();
    const at::Tensor weighted = gradients[0].unsqueeze(1) * share;
    return {weighted - log_p.exp() * weighted.sum(-1, /*keepdim=*/true)};
  }
};

}  // namespace

at::Tensor RoundTo(const at::Tensor& x, at::ScalarType dtype) {
  return dtype == at::kFloat ? x : x.to(dtype).to(at::kFloat);
}

GeluForm GeluFormOf(const std::string& word) {
  return word == "tanh" ? GeluForm::kTanh : GeluForm::kErf;
}

at::Tensor Gelu(const at::Tensor& x, GeluForm form) {
  if (!x.is_cpu()) return at::gelu(x, Approximation(form));
  return Records(x) ? GeluFunction::apply(x, form == GeluForm::kTanh) : RunGelu(x, form);
}

at::Tensor HeadMixture(const at::Tensor& scores) {
  if (!scores.is_cpu()) {
    return at::logsumexp(at::log_softmax(scores, -1), 1) -
           std::log(static_cast<double>(scores.size(1)));
  }
  return Records(scores) ? HeadMixtureFunction::apply(scores) : RunHeadMixture(scores);
}

at::Tensor QueryKeyLogits(const at::Tensor& x, const at::Tensor& query, const at::Tensor& keys) {
  const std::int64_t heads = keys.size(0);
  const std::int64_t width = keys.size(2);
  const at::Tensor q =
      LinearRows(x, query, RowMode::kTiled) / std::sqrt(static_cast<double>(width));
  std::vector<at::Tensor> scores;
  for (std::int64_t head = 0; head < heads; ++head) {
    scores.push_back(
        LinearRows(q.narrow(1, head * width, width), keys.select(0, head), RowMode::kTiled));
  }
  return HeadMixture(at::stack(scores, 1));
}

}  // namespace penstock
