#include "tests/server/model/reference/model_runner.h"

#include <utility>

#include "routers/package/fingerprint.h"
#include "routers/package/router_start.h"
#include "routers/router_loading.h"
#include "server/base/check.h"

namespace penstock {
namespace {

template <typename T>
T Must(absl::StatusOr<T> value) {
  PENSTOCK_CHECK(value.ok()) << value.status().ToString();
  return *std::move(value);
}

at::ScalarType TorchType(const std::string& dtype) {
  if (dtype == "bfloat16") return at::kBFloat16;
  return dtype == "float16" ? at::kHalf : at::kFloat;
}

}  // namespace

std::vector<TokenId> RunnerAnswer::token_ids() const {
  std::vector<TokenId> ids;
  for (const ScoredToken& token : tokens) ids.push_back(token.token.token);
  return ids;
}

ModelRunner::ModelRunner(const std::string& folder, RunnerOptions options)
    : options_(std::move(options)) {
  checkpoint_ = Must(Checkpoint::Open(folder));
  model_ = Must(CreateReferenceModel(checkpoint_, options_.model));
  options_.scheduler.block_tokens = options_.model.block_tokens;
  options_.scheduler.num_blocks = options_.model.num_blocks;
  scheduler_ = Must(Scheduler::Create(options_.scheduler));
}

std::vector<std::string> ModelRunner::kinds() const {
  std::vector<std::string> names;
  for (const RouterKind* kind : RouterRegistry::Global().catalogue().Kinds())
    names.push_back(kind->name);
  return names;
}

std::shared_ptr<const LoadedRouter> ModelRunner::router(const std::string& kind) {
  std::shared_ptr<const LoadedRouter>& loaded = routers_[kind];
  if (loaded != nullptr) return loaded;
  const RouterModel model = {
      .shape = checkpoint_->router_shape(),
      .base_fingerprint = Must(BaseFingerprint(
          checkpoint_->router_shape(), checkpoint_->config().layers, checkpoint_->gates()))};
  std::vector<TensorView> gates;
  for (const NamedGate& gate : checkpoint_->gates()) gates.push_back(gate.weight);
  const RouterPackage package =
      kind == kCheckpointRouter
          ? Must(CheckpointRouterPackage(model, gates))
          : Must(InitRouter(*Must(RouterRegistry::Global().catalogue().Find(kind)),
                            {.model = model, .gates = gates, .seed = options_.router_seed}));
  LoadedRouter made;
  made.name = kind;
  made.fingerprint = PackageFingerprint(package);
  made.router = Must(MakeRouter(package, model, {.dtype = TorchType(model_->spec().dtype)}));
  loaded = std::make_shared<const LoadedRouter>(std::move(made));
  return loaded;
}

SequenceId ModelRunner::Add(SequenceSpec spec) {
  spec.id = next_id_++;
  if (spec.router == nullptr) spec.router = router(std::string(kCheckpointRouter));
  const SequenceId id = spec.id;
  answers_[id];
  const absl::Status enqueued = scheduler_->Enqueue(std::move(spec), now_);
  PENSTOCK_CHECK(enqueued.ok()) << enqueued.ToString();
  return id;
}

bool ModelRunner::Step() {
  now_ += absl::Milliseconds(1);
  const std::optional<StepPlan> plan = scheduler_->PlanStep(now_);
  if (plan.has_value()) {
    model_->Submit(*plan);
    results_.push_back(Must(model_->Await()));
    scheduler_->CommitStep(*plan, results_.back(), now_);
  }
  for (SequenceEvent& event : scheduler_->TakeEvents()) {
    RunnerAnswer& answer = answers_.at(event.id);
    answer.tokens.insert(answer.tokens.end(), event.tokens.begin(), event.tokens.end());
    answer.prompt_scores.insert(answer.prompt_scores.end(), event.prompt_scores.begin(),
                                event.prompt_scores.end());
    answer.traces.insert(answer.traces.end(), event.traces.begin(), event.traces.end());
    answer.finish = event.finish;
    answer.error = event.error;
    answer.stats = event.stats;
  }
  return plan.has_value();
}

void ModelRunner::Run() {
  while (Step()) {
  }
  PENSTOCK_CHECK(scheduler_->Idle()) << "sequences are left that no step can run";
}

RunnerAnswer ModelRunner::Answer(SequenceSpec spec) {
  const SequenceId id = Add(std::move(spec));
  Run();
  return answer(id);
}

SequenceSpec GreedySpec(std::vector<TokenId> prompt, int count) {
  SequenceSpec spec;
  spec.tenant = "t";
  spec.prompt = std::move(prompt);
  spec.sampling.temperature = 0;
  spec.stopping.max_new_tokens = count;
  return spec;
}

}  // namespace penstock
