// A model, the reference model unless another is given, under the real scheduler: sequences in,
// answers out. What the engine does, without its threads.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "c10/core/Device.h"
#include "server/model/reference/reference_model.h"
#include "server/scheduler/scheduler.h"

namespace penstock {

// Everything that came of one sequence.
struct RunnerAnswer {
  std::vector<ScoredToken> tokens;
  std::vector<ScoredToken> prompt_scores;
  std::vector<RowTrace> traces;
  std::optional<FinishReason> finish;
  absl::Status error;
  SequenceStats stats;

  std::vector<TokenId> token_ids() const;

  // Tokens, the bits of all log-probabilities, and traces: what has to be equal.
  using Bits = std::tuple<std::vector<TokenId>, std::vector<std::uint32_t>, std::vector<int>>;
  Bits bits() const;
};

struct RunnerOptions {
  ReferenceModelOptions model = {.num_blocks = 256};
  Scheduler::Options scheduler =
      {};  // block_tokens, num_blocks and max_uncommitted are the model's
  std::uint64_t router_seed = 1;
  // Another backend, and where its routers' tensors stand.
  std::function<absl::StatusOr<std::unique_ptr<Model>>(const Checkpoint&)> make_model = nullptr;
  at::Device device = at::kCPU;
  // Sees every plan before the model does, and may change it.
  std::function<void(StepPlan&)> on_plan = nullptr;
};

// Anything that goes wrong ends the process: it is the test's own mistake.
class ModelRunner {
 public:
  ModelRunner(const std::string& folder, RunnerOptions options);

  const Model& model() const { return *model_; }
  const Checkpoint& checkpoint() const { return *checkpoint_; }

  // Every registered kind; "linear" is the checkpoint's own gates, the others start from the seed.
  std::vector<std::string> kinds() const;
  std::shared_ptr<const LoadedRouter> router(const std::string& kind);
  // Another router of the kind, under the same name: what a swap brings.
  std::shared_ptr<const LoadedRouter> MakeAnother(const std::string& kind, std::uint64_t seed);

  // `spec` gets an id, and the checkpoint's router if it has none. Its answer fills as steps run.
  SequenceId Add(SequenceSpec spec);
  // Submits as many steps as may be in flight, and commits the oldest. False: there was nothing to
  // do.
  bool Step();
  void Run();

  const RunnerAnswer& answer(SequenceId id) const { return answers_.at(id); }
  // Runs `spec` to its end, beside whatever was added before.
  RunnerAnswer Answer(SequenceSpec spec);

  // What the model returned so far, step by step.
  const std::vector<StepResult>& results() const { return results_; }
  const Scheduler& scheduler() const { return *scheduler_; }

 private:
  RunnerOptions options_;
  std::shared_ptr<const Checkpoint> checkpoint_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Scheduler> scheduler_;
  std::deque<StepPlan> in_flight_;
  std::map<std::string, std::shared_ptr<const LoadedRouter>> routers_;
  std::map<SequenceId, RunnerAnswer> answers_;
  std::vector<StepResult> results_;
  SequenceId next_id_ = 1;
  absl::Duration now_;
};

// Greedy, `count` new tokens.
SequenceSpec GreedySpec(std::vector<TokenId> prompt, int count);

}  // namespace penstock
