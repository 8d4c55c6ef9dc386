#include "tests/server/model/reference/model_runner.h"

#include <bit>
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

RunnerAnswer::Bits RunnerAnswer::bits() const {
  std::vector<TokenId> ids;
  std::vector<std::uint32_t> logprobs;
  std::vector<int> routes;
  for (const auto* scores : {&prompt_scores, &tokens}) {
    for (const ScoredToken& score : *scores) {
      ids.push_back(score.token.token);
      logprobs.push_back(std::bit_cast<std::uint32_t>(score.token.logprob));
    }
  }
  for (const RowTrace& trace : traces) {
    for (const std::uint8_t expert : trace.experts) routes.push_back(expert);
    for (const float weight : trace.weights) routes.push_back(std::bit_cast<int>(weight));
  }
  return {ids, logprobs, routes};
}

ModelRunner::ModelRunner(const std::string& folder, RunnerOptions options)
    : options_(std::move(options)) {
  checkpoint_ = Must(Checkpoint::Open(folder));
  model_ = Must(options_.make_model != nullptr ? options_.make_model(*checkpoint_)
                                               : CreateReferenceModel(checkpoint_, options_.model));
  options_.scheduler.block_tokens = model_->spec().block_tokens;
  options_.scheduler.num_blocks = model_->spec().num_blocks;
  options_.scheduler.max_uncommitted = model_->max_in_flight();
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
  if (loaded == nullptr) loaded = MakeAnother(kind, options_.router_seed);
  return loaded;
}

std::shared_ptr<const LoadedRouter> ModelRunner::MakeAnother(const std::string& kind,
                                                             std::uint64_t seed) {
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
                            {.model = model, .gates = gates, .seed = seed}));
  LoadedRouter made;
  made.name = kind;
  made.fingerprint = PackageFingerprint(package);
  made.router = Must(MakeRouter(
      package, model, {.dtype = TorchType(model_->spec().dtype), .device = options_.device}));
  return std::make_shared<const LoadedRouter>(std::move(made));
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
  while (static_cast<int>(in_flight_.size()) < model_->max_in_flight()) {
    std::optional<StepPlan> plan = scheduler_->PlanStep(now_);
    if (!plan.has_value()) break;
    if (options_.on_plan != nullptr) options_.on_plan(*plan);
    in_flight_.push_back(*std::move(plan));
    model_->Submit(in_flight_.back());
  }
  const bool worked = !in_flight_.empty();
  if (worked) {
    results_.push_back(Must(model_->Await()));
    scheduler_->CommitStep(in_flight_.front(), results_.back(), now_);
    in_flight_.pop_front();
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
  return worked;
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
  spec.tenant.assign(1, 't');
  spec.prompt = std::move(prompt);
  spec.sampling.temperature = 0;
  spec.stopping.max_new_tokens = count;
  return spec;
}

}  // namespace penstock
