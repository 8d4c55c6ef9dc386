// A learned balance of gate and heads: z = α M(W x) + (1 − α) s z_attention, α = σ(mix).
#include <optional>
#include <utility>

#include "ATen/TensorOperators.h"
#include "ATen/core/grad_mode.h"
#include "ATen/ops/sigmoid.h"
#include "routers/head_scores.h"
#include "routers/kind_rules.h"
#include "routers/linear_rows.h"
#include "routers/logit_routing.h"
#include "routers/row_functions.h"

namespace penstock {
namespace {

class HybridRouter final : public LogitRouter {
 public:
  HybridRouter(RouterSpec spec, const std::vector<RouterTensors>& layers,
               const RouterOptions& options)
      : LogitRouter(std::move(spec)),
        dtype_(options.dtype),
        w_(Prepared(layers, "W", options)),
        query_(Prepared(layers, "W_q", options)),
        keys_(Prepared(layers, "K", options)),
        scores_(query_, keys_),
        mix_(Prepared(layers, "mix", options)),
        scale_(Prepared(layers, "s", options)) {
    // A program has its scalars on the host.
    for (std::size_t i = 0; i < mix_.size(); ++i) {
      const at::NoGradGuard no_gradient;
      const at::Tensor alpha = at::sigmoid(mix_[i]);
      gate_share_.push_back(alpha.item<float>());
      heads_share_.push_back(((1.0 - alpha) * scale_[i]).item<float>());
    }
  }

  at::Tensor Logits(int layer, const at::Tensor& hidden) const override {
    const at::Tensor x = hidden.to(at::kFloat);
    const at::Tensor gate = RoundTo(LinearRows(x, w_[layer], RowMode::kTiled), dtype_);
    const at::Tensor heads = QueryKeyLogits(x, query_[layer], keys_[layer]);
    const at::Tensor alpha = at::sigmoid(mix_[layer]);  // [1]
    return alpha * gate + ((1.0 - alpha) * scale_[layer]) * heads;
  }

  std::optional<RouterProgram> Program(int layer) const override {
    const at::Tensor& keys = keys_[layer];
    RouterProgram program;
    program.form = HiddenForm::kHeads;
    program.hidden = static_cast<std::int32_t>(keys.size(0) * keys.size(1));
    program.heads = static_cast<std::int32_t>(keys.size(0));
    program.direct = w_[layer].const_data_ptr();
    program.direct_scale = gate_share_[layer];
    program.hidden_scale = heads_share_[layer];
    program.first = scores_.Of(layer);
    return program;
  }

 private:
  at::ScalarType dtype_;
  std::vector<at::Tensor> w_;      // [E, d] per layer
  std::vector<at::Tensor> query_;  // [a, d]
  std::vector<at::Tensor> keys_;   // [H, E, a/H]
  HeadScores scores_;
  std::vector<at::Tensor> mix_;     // [1]
  std::vector<at::Tensor> scale_;   // [1]
  std::vector<float> gate_share_;   // per layer: α
  std::vector<float> heads_share_;  // per layer: (1 − α) · s
};

std::vector<TensorRule> Tensors(const RouterSpec& spec) {
  // At a mix of 20 the sigmoid is 1 in fp32: the heads have no part.
  constexpr float kNeutralMix = 20.0f;
  const RouterShape& shape = spec.shape();
  std::vector<TensorRule> tensors = QueryKeyTensors(spec);
  tensors.insert(tensors.begin(), {.name = "W",
                                   .shape = {shape.experts, shape.d},
                                   .start = NormalStart(shape.d),
                                   .neutral_start = GateStart()});
  tensors.push_back({.name = "mix",
                     .shape = {1},
                     .start = ConstantStart(0.0f),
                     .neutral_start = ConstantStart(kNeutralMix)});
  tensors.push_back({.name = "s", .shape = {1}, .start = ConstantStart(1.0f)});
  return tensors;
}

RouterKind Kind() {
  return {.name = "hybrid",
          .summary = "a learned balance of one matrix and heads of query and key",
          .hyper = QueryKeyHyper(),
          .has_neutral_start = true,
          .complaint = QueryKeyComplaint,
          .tensors = Tensors,
          .flops = [](const RouterSpec& spec) {
            return GateFlops(spec) + QueryKeyFlops(spec) + 4 * spec.shape().experts;
          }};
}

const RouterRegistration registration(Kind(), &MakeRouterOf<HybridRouter>);

}  // namespace
}  // namespace penstock
