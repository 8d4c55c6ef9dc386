// One hidden layer: z = W2 GELU(W1 x + b1) + b2.
#include <optional>
#include <utility>

#include "ATen/TensorOperators.h"
#include "routers/kind_rules.h"
#include "routers/linear_rows.h"
#include "routers/logit_routing.h"
#include "routers/row_functions.h"

namespace penstock {
namespace {

class MlpRouter final : public LogitRouter {
 public:
  MlpRouter(RouterSpec spec, const std::vector<RouterTensors>& layers, const RouterOptions& options)
      : LogitRouter(std::move(spec)),
        gelu_(GeluFormOf(this->spec().Word("gelu"))),
        w1_(Prepared(layers, "W1", options)),
        b1_(Prepared(layers, "b1", options)),
        w2_(Prepared(layers, "W2", options)),
        b2_(Prepared(layers, "b2", options)) {}

  at::Tensor Logits(int layer, const at::Tensor& hidden) const override {
    const at::Tensor x = hidden.to(at::kFloat);
    const at::Tensor inner = Gelu(LinearRows(x, w1_[layer], RowMode::kTiled) + b1_[layer], gelu_);
    return LinearRows(inner, w2_[layer], RowMode::kTiled) + b2_[layer];
  }

  std::optional<RouterProgram> Program(int layer) const override {
    RouterProgram program;
    program.form = HiddenForm::kLogits;
    program.activation =
        gelu_ == GeluForm::kErf ? HiddenActivation::kGeluErf : HiddenActivation::kGeluTanh;
    program.hidden = static_cast<std::int32_t>(w1_[layer].size(0));
    program.first = w1_[layer].const_data_ptr();
    program.first_bias = b1_[layer].const_data_ptr<float>();
    program.second = w2_[layer].const_data_ptr();
    program.second_bias = b2_[layer].const_data_ptr<float>();
    return program;
  }

 private:
  GeluForm gelu_;
  std::vector<at::Tensor> w1_;  // [h, d] per layer
  std::vector<at::Tensor> b1_;  // [h]
  std::vector<at::Tensor> w2_;  // [E, h]
  std::vector<at::Tensor> b2_;  // [E]
};

RouterKind Kind() {
  return {.name = "mlp",
          .summary = "one hidden layer with GELU",
          .hyper = HiddenLayerHyper(),
          .tensors = [](const RouterSpec& spec) -> std::vector<TensorRule> {
            const RouterShape& shape = spec.shape();
            const std::int64_t h = spec.Number("hidden_width");
            return {{.name = "W1", .shape = {h, shape.d}, .start = NormalStart(shape.d)},
                    {.name = "b1", .shape = {h}, .start = ConstantStart(0.0f)},
                    {.name = "W2", .shape = {shape.experts, h}, .start = NormalStart(h)},
                    {.name = "b2", .shape = {shape.experts}, .start = ConstantStart(0.0f)}};
          },
          .flops =
              [](const RouterSpec& spec) {
                const std::int64_t h = spec.Number("hidden_width");
                return 2 * spec.shape().d * h + 2 * h * spec.shape().experts + 8 * h;
              }};
}

const RouterRegistration registration(Kind(), &MakeRouterOf<MlpRouter>);

}  // namespace
}  // namespace penstock
