// A gate over a modulated state: z = M(W_o (x ⊙ (1 + B GELU(A x)))). Both factors depend on x: a
// product with a constant vector would fold into W_o.
#include <optional>
#include <utility>

#include "ATen/TensorOperators.h"
#include "routers/kind_rules.h"
#include "routers/linear_rows.h"
#include "routers/logit_routing.h"
#include "routers/row_functions.h"

namespace penstock {
namespace {

class MlpHadamardRouter final : public LogitRouter {
 public:
  MlpHadamardRouter(RouterSpec spec, const std::vector<RouterTensors>& layers,
                    const RouterOptions& options)
      : LogitRouter(std::move(spec)),
        dtype_(options.dtype),
        gelu_(GeluFormOf(this->spec().Word("gelu"))),
        a_(Prepared(layers, "A", options)),
        b_(Prepared(layers, "B", options)),
        w_o_(Prepared(layers, "W_o", options)) {}

  at::Tensor Logits(int layer, const at::Tensor& hidden) const override {
    const at::Tensor x = hidden.to(at::kFloat);
    const at::Tensor inner = Gelu(LinearRows(x, a_[layer], RowMode::kTiled), gelu_);
    const at::Tensor modulated = x * (LinearRows(inner, b_[layer], RowMode::kTiled) + 1.0);
    return RoundTo(LinearRows(modulated, w_o_[layer], RowMode::kTiled), dtype_);
  }

  std::optional<RouterProgram> Program(int layer) const override {
    RouterProgram program;
    program.form = HiddenForm::kModulated;
    program.activation =
        gelu_ == GeluForm::kErf ? HiddenActivation::kGeluErf : HiddenActivation::kGeluTanh;
    program.hidden = static_cast<std::int32_t>(a_[layer].size(0));
    program.first = a_[layer].const_data_ptr();
    program.second = b_[layer].const_data_ptr();
    program.third = w_o_[layer].const_data_ptr();
    return program;
  }

 private:
  at::ScalarType dtype_;
  GeluForm gelu_;
  std::vector<at::Tensor> a_;    // [h, d] per layer
  std::vector<at::Tensor> b_;    // [d, h]
  std::vector<at::Tensor> w_o_;  // [E, d]
};

RouterKind Kind() {
  return {.name = "mlp_hadamard",
          .summary = "one matrix over the state times a hidden layer's view of it",
          .hyper = HiddenLayerHyper(),
          .has_neutral_start = true,
          .tensors = [](const RouterSpec& spec) -> std::vector<TensorRule> {
            const RouterShape& shape = spec.shape();
            const std::int64_t h = spec.Number("hidden_width");
            return {{.name = "A", .shape = {h, shape.d}, .start = NormalStart(shape.d)},
                    {.name = "B",
                     .shape = {shape.d, h},
                     .start = NormalStart(h),
                     .neutral_start = ConstantStart(0.0f)},
                    {.name = "W_o",
                     .shape = {shape.experts, shape.d},
                     .start = NormalStart(shape.d),
                     .neutral_start = GateStart()}};
          },
          .flops =
              [](const RouterSpec& spec) {
                const std::int64_t d = spec.shape().d;
                const std::int64_t h = spec.Number("hidden_width");
                return 4 * d * h + 8 * h + 2 * d + GateFlops(spec);
              }};
}

const RouterRegistration registration(Kind(), &MakeRouterOf<MlpHadamardRouter>);

}  // namespace
}  // namespace penstock
