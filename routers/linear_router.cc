// The checkpoint's own form of gate: z = M(W x).
#include <utility>

#include "routers/kind_rules.h"
#include "routers/linear_rows.h"
#include "routers/logit_routing.h"
#include "routers/row_functions.h"

namespace penstock {
namespace {

class LinearRouter final : public LogitRouter {
 public:
  LinearRouter(RouterSpec spec, std::vector<RouterTensors> layers, const RouterOptions& options)
      : LogitRouter(std::move(spec)), dtype_(options.dtype), w_(Prepared(layers, "W", options)) {
    for (at::Tensor& w : w_) w = RoundTo(w, dtype_);
  }

  // Both operands are in the model's dtype, as in Hugging Face's gate. The product is that of their
  // widened values, as in the kinds that hold a gate: so their neutral starts give the same bits.
  at::Tensor Logits(int layer, const at::Tensor& hidden) const override {
    return RoundTo(LinearRows(hidden.to(at::kFloat), w_[layer], RowMode::kTiled), dtype_);
  }

 private:
  at::ScalarType dtype_;
  std::vector<at::Tensor> w_;  // [E, d] per layer, fp32 holding values of the model's dtype
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
