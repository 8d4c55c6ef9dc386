#include "server/scheduler/scheduler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/scheduler/scheduler_state.h"

namespace penstock {
namespace {

constexpr int kMaxUncommitted = 4;
constexpr absl::Duration kShortestRetry = absl::Seconds(1), kLongestRetry = absl::Seconds(60);

absl::Status CheckAtLeast(std::string_view field, std::int64_t value, std::int64_t least) {
  if (value >= least) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(value), absl::StrCat("at least ", least));
}

absl::Status ValidateWeights(const std::map<std::string, double>& weights) {
  for (const auto& [tenant, weight] : weights) {
    if (std::isfinite(weight) && weight > 0) continue;
    return InvalidField(absl::StrCat("tenant_weights[", tenant, "]"), absl::StrCat(weight),
                        "a finite number above 0");
  }
  return absl::OkStatus();
}

absl::Status ValidateOptions(const Scheduler::Options& options) {
  PENSTOCK_RETURN_IF_ERROR(CheckAtLeast("max_batch", options.max_batch, 1));
  if (options.token_budget < options.max_batch) {
    return InvalidField("token_budget", absl::StrCat(options.token_budget),
                        absl::StrCat("at least max_batch (", options.max_batch, ")"));
  }
  PENSTOCK_RETURN_IF_ERROR(CheckAtLeast("prefill_chunk", options.prefill_chunk, 1));
  PENSTOCK_RETURN_IF_ERROR(CheckAtLeast("background_rows", options.background_rows, 1));
  PENSTOCK_RETURN_IF_ERROR(CheckAtLeast("max_queue", options.max_queue, 1));
  PENSTOCK_RETURN_IF_ERROR(CheckAtLeast("block_tokens", options.block_tokens, 1));
  if (options.num_blocks < 1 || options.num_blocks > std::numeric_limits<int>::max()) {
    return InvalidField("num_blocks", absl::StrCat(options.num_blocks),
                        absl::StrCat("1 to ", std::numeric_limits<int>::max()));
  }
  if (options.max_uncommitted < 1 || options.max_uncommitted > kMaxUncommitted) {
    return InvalidField("max_uncommitted", absl::StrCat(options.max_uncommitted),
                        absl::StrCat("1 to ", kMaxUncommitted));
  }
  if (options.priority_aging <= absl::ZeroDuration()) {
    return InvalidField("priority_aging", absl::FormatDuration(options.priority_aging), "above 0");
  }
  return ValidateWeights(options.tenant_weights);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Scheduler>> Scheduler::Create(const Options& options) {
  PENSTOCK_RETURN_IF_ERROR(ValidateOptions(options));
  return std::unique_ptr<Scheduler>(new Scheduler(std::make_unique<State>(options)));
}

Scheduler::Scheduler(std::unique_ptr<State> state) : state_(std::move(state)) {}
Scheduler::~Scheduler() = default;

absl::Status Scheduler::Enqueue(SequenceSpec spec, absl::Duration now) {
  return state_->Enqueue(std::move(spec), now);
}
void Scheduler::Cancel(SequenceId id, FinishReason reason) { state_->Cancel(id, reason); }
std::optional<StepPlan> Scheduler::PlanStep(absl::Duration now) { return state_->PlanStep(now); }
void Scheduler::CommitStep(const StepPlan& plan, const StepResult& result, absl::Duration now) {
  state_->CommitStep(plan, result, now);
}
std::vector<SequenceEvent> Scheduler::TakeEvents() { return state_->TakeEvents(); }
bool Scheduler::Idle() const { return state_->Idle(); }
SchedulerLoad Scheduler::Load() const { return state_->Load(); }
absl::Status Scheduler::Audit() const { return state_->Audit(); }

absl::Status Scheduler::SetTenantWeights(std::map<std::string, double> weights) {
  PENSTOCK_RETURN_IF_ERROR(ValidateWeights(weights));
  state_->SetTenantWeights(std::move(weights));
  return absl::OkStatus();
}

Scheduler::State::State(const Options& options)
    : options_(options),
      pool_(static_cast<int>(options.num_blocks)),
      index_(&pool_),
      shares_(options.tenant_weights),
      waiting_(options.priority_aging) {}

absl::Status Scheduler::State::Enqueue(SequenceSpec spec, absl::Duration now) {
  Observe(now);
  PENSTOCK_RETURN_IF_ERROR(Validate(spec));
  if (live_.contains(spec.id)) {
    return MakeError(absl::StatusCode::kAlreadyExists,
                     absl::StrCat("sequence ", spec.id, " is live"),
                     {.reason = "SEQUENCE_EXISTS", .field = "id", .retry_after = {}});
  }
  if (spec.deadline <= now) {
    return MakeError(absl::StatusCode::kDeadlineExceeded,
                     "the deadline passed before the request was queued",
                     {.reason = "DEADLINE_EXCEEDED", .field = {}, .retry_after = {}});
  }
  if (!spec.background && waiting_.size() - background_waiting_ >= options_.max_queue) {
    return MakeError(absl::StatusCode::kResourceExhausted,
                     absl::StrCat("the queue is full: ", waiting_.size(), " sequences wait, limit ",
                                  options_.max_queue),
                     {.reason = "QUEUE_FULL", .field = {}, .retry_after = RetryAfter()});
  }
  const SequenceId id = spec.id;
  const absl::Duration deadline = spec.deadline;
  TenantShare* const share = shares_.Join(spec.tenant);
  auto sequence = std::make_shared<Sequence>(std::move(spec), ++arrivals_, share, &pool_);
  sequence->stats.enqueued = now;
  waiting_.PushBack(sequence.get(), now);
  background_waiting_ += sequence->spec->background;
  if (deadline != absl::InfiniteDuration()) deadlines_[{deadline, sequence->arrival}] = id;
  live_[id] = std::move(sequence);
  return absl::OkStatus();
}

absl::Status Scheduler::State::Validate(const SequenceSpec& spec) const {
  if (spec.router == nullptr) return InvalidField("router", "none", "a loaded router");
  if (spec.prompt.empty()) return InvalidField("prompt", "0 tokens", "at least 1");
  const auto negative =
      std::find_if(spec.prompt.begin(), spec.prompt.end(), [](TokenId t) { return t < 0; });
  if (negative != spec.prompt.end()) {
    return InvalidField(absl::StrCat("prompt[", negative - spec.prompt.begin(), "]"),
                        absl::StrCat(*negative), "a token id of at least 0");
  }
  if (spec.priority < 0 || spec.priority > kMaxPriority) {
    return InvalidField("priority", absl::StrCat(spec.priority),
                        absl::StrCat("0 to ", kMaxPriority));
  }
  const int max_new_tokens = spec.stopping.max_new_tokens;
  PENSTOCK_RETURN_IF_ERROR(CheckAtLeast("stopping.max_new_tokens", max_new_tokens, 0));
  if (spec.background && max_new_tokens > 0) {
    return InvalidField("stopping.max_new_tokens", absl::StrCat(max_new_tokens),
                        "0 for a background sequence: it answers nobody");
  }
  // The last token is not fed back: it needs no position.
  const std::int64_t prompt = static_cast<std::int64_t>(spec.prompt.size());
  const std::int64_t positions = prompt + std::max(max_new_tokens, 1) - 1;
  const std::int64_t capacity = std::min<std::int64_t>(options_.num_blocks * options_.block_tokens,
                                                       std::numeric_limits<int>::max() / 2);
  if (positions > capacity) {
    return InvalidField("stopping.max_new_tokens", absl::StrCat(max_new_tokens),
                        absl::StrCat("with a prompt of ", prompt, " tokens at most ", capacity,
                                     " positions, the KV cache's size"));
  }
  return absl::OkStatus();
}

// When about an eighth of the queue will have been admitted at the recent rate: room that is worth
// coming back for.
absl::Duration Scheduler::State::RetryAfter() const {
  const absl::Duration wait = admission_interval_ * std::max(1, waiting_.size() / 8);
  return std::clamp(wait, kShortestRetry, kLongestRetry);
}

int Scheduler::State::BlocksFor(std::int64_t positions) const {
  return static_cast<int>((positions + options_.block_tokens - 1) / options_.block_tokens);
}

void Scheduler::State::Cancel(SequenceId id, FinishReason reason) {
  const auto live = live_.find(id);
  if (live == live_.end()) return;
  const std::shared_ptr<Sequence> sequence = live->second;
  End(sequence, reason, {});
}

void Scheduler::State::End(const std::shared_ptr<Sequence>& sequence, FinishReason reason,
                           SequenceEvent event) {
  PENSTOCK_CHECK(sequence->place != Sequence::Place::kEnded) << "sequence " << sequence->spec->id;
  if (sequence->place == Sequence::Place::kWaiting) {
    waiting_.Remove(sequence.get());
    background_waiting_ -= sequence->spec->background;
  } else {
    running_.erase(sequence.get());
    background_running_ -= sequence->spec->background;
  }
  sequence->place = Sequence::Place::kEnded;
  sequence->table.Release();
  shares_.Leave(sequence->tenant);
  deadlines_.erase({sequence->spec->deadline, sequence->arrival});
  sequence->stats.output_tokens = static_cast<int>(sequence->output.size());
  sequence->stats.finished = now_;
  event.id = sequence->spec->id;
  event.finish = reason;
  event.stats = sequence->stats;
  events_.push_back(std::move(event));
  live_.erase(sequence->spec->id);
}

SchedulerLoad Scheduler::State::Load() const {
  return {.running = static_cast<int>(running_.size()) - background_running_,
          .waiting = waiting_.size() - background_waiting_,
          .background = background_running_ + background_waiting_,
          .blocks_free = pool_.free(),
          .blocks_active = pool_.active(),
          .blocks_cached = pool_.cached(),
          .preemptions = preemptions_,
          .traffic_rows = traffic_rows_,
          .background_rows = background_rows_};
}

void Scheduler::State::SetTenantWeights(std::map<std::string, double> weights) {
  shares_.SetWeights(std::move(weights));
}

}  // namespace penstock
