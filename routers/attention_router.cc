// Heads of query and key, experts as keys: z = log of the mean over heads j of softmax(K_j q_j /
// √(a/H)), q = W_q x. One head would be a low-rank linear router; a mixture of several is not.
#include <optional>
#include <utility>

#include "routers/head_scores.h"
#include "routers/kind_rules.h"
#include "routers/logit_routing.h"
#include "routers/row_functions.h"

namespace penstock {
namespace {

class AttentionRouter final : public LogitRouter {
 public:
  AttentionRouter(RouterSpec spec, const std::vector<RouterTensors>& layers,
                  const RouterOptions& options)
      : LogitRouter(std::move(spec)),
        query_(Prepared(layers, "W_q", options)),
        keys_(Prepared(layers, "K", options)),
        scores_(query_, keys_) {}

  at::Tensor Logits(int layer, const at::Tensor& hidden) const override {
    return QueryKeyLogits(hidden.to(at::kFloat), query_[layer], keys_[layer]);
  }

  std::optional<RouterProgram> Program(int layer) const override {
    const at::Tensor& keys = keys_[layer];
    RouterProgram program;
    program.form = HiddenForm::kHeads;
    program.hidden = static_cast<std::int32_t>(keys.size(0) * keys.size(1));
    program.heads = static_cast<std::int32_t>(keys.size(0));
    program.first = scores_.Of(layer);
    return program;
  }

 private:
  std::vector<at::Tensor> query_;  // [a, d] per layer
  std::vector<at::Tensor> keys_;   // [H, E, a/H] per layer
  HeadScores scores_;
};

RouterKind Kind() {
  return {.name = "attention",
          .summary = "a mixture of softmaxes, one per head of query and key",
          .hyper = QueryKeyHyper(),
          .complaint = QueryKeyComplaint,
          .tensors = QueryKeyTensors,
          .flops = QueryKeyFlops};
}

const RouterRegistration registration(Kind(), &MakeRouterOf<AttentionRouter>);

}  // namespace
}  // namespace penstock
