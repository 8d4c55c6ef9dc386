// The checkpoint's own form of gate: z = M(W x).
#include <optional>
#include <utility>

#include "routers/kind_rules.h"
#include "routers/linear_rows.h"
#include "routers/logit_routing.h"
#include "routers/row_functions.h"

namespace penstock {
namespace {

class LinearRouter final : public LogitRouter {
 public:
  LinearRouter(RouterSpec spec, const std::vector<RouterTensors>& layers,
               const RouterOptions& options)
      : LogitRouter(std::move(spec)), dtype_(options.dtype), w_(Prepared(layers, "W", options)) {
    for (at::Tensor& w : w_) w = RoundTo(w, dtype_);
    if (options.device.is_cpu() || dtype_ != at::kBFloat16) return;
    for (const at::Tensor& w : w_) narrow_.push_back(w.to(at::kBFloat16));
  }

  // Both operands are in the model's dtype, as in Hugging Face's gate. The product is that of their
  // widened values, as in the kinds that hold a gate: so their neutral starts give the same bits.
  at::Tensor Logits(int layer, const at::Tensor& hidden) const override {
    return RoundTo(LinearRows(hidden.to(at::kFloat), w_[layer], RowMode::kTiled), dtype_);
  }

  std::optional<RouterProgram> Program(int layer) const override {
    RouterProgram program;
    program.element = narrow_.empty() ? Element::kF32 : Element::kBF16;
    program.direct = (narrow_.empty() ? w_ : narrow_)[layer].const_data_ptr();
    return program;
  }

 private:
  at::ScalarType dtype_;
  std::vector<at::Tensor> w_;       // [E, d] per layer, fp32 holding values of the model's dtype
  std::vector<at::Tensor> narrow_;  // the same in bf16, where a program will read them
};

RouterKind Kind() {
  return {.name = "linear",
          .summary = "one matrix, as in the checkpoint",
          .has_neutral_start = true,
          .tensors = [](const RouterSpec& spec) -> std::vector<TensorRule> {
            const RouterShape& shape = spec.shape();
            return {{.name = "W",
                     .shape = {shape.experts, shape.d},
                     .start = NormalStart(shape.d),
                     .neutral_start = GateStart()}};
          },
          .flops = GateFlops};
}

const RouterRegistration registration(Kind(), &MakeRouterOf<LinearRouter>);

}  // namespace
}  // namespace penstock
