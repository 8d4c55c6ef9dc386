#include "server/engine/engine.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <limits>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/error.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"

namespace penstock {
namespace {

// How long the loop sleeps when sequences are live and none can run; new work and cancellations
// wake it earlier.
constexpr std::chrono::milliseconds kBlockedPause(2);

StepPhase PhaseOf(const StepPlan& plan) {
  if (plan.decode_rows == 0) return StepPhase::kPrefill;
  return plan.decode_rows == plan.rows() ? StepPhase::kDecode : StepPhase::kMixed;
}

}  // namespace

class Engine::State {
 public:
  State(std::unique_ptr<Model> model, std::unique_ptr<Scheduler> scheduler, Options options,
        Telemetry* telemetry, const Clock* clock)
      : model_(std::move(model)),
        scheduler_(std::move(scheduler)),
        options_(std::move(options)),
        telemetry_(telemetry),
        clock_(clock),
        shadows_(model_->spec().shadow_routing ? options_.shadows : nullptr),
        max_queue_(options_.scheduler.max_queue) {}

  const ModelSpec& model_spec() const { return model_->spec(); }
  void SetEventHandler(std::function<void(std::vector<SequenceEvent>)> handler) {
    handler_ = std::move(handler);
  }

  void SetBackgroundHandler(std::function<void(std::vector<SequenceEvent>)> handler) {
    background_handler_ = std::move(handler);
  }

  absl::Status Submit(std::vector<SequenceSpec> sequences) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopped_)
      return MakeError(absl::StatusCode::kUnavailable, "the server is stopping",
                       {.reason = "STOPPING", .field = {}, .retry_after = {}});
    if (!lost_.ok()) return lost_;
    const std::int64_t live =
        load_.running + load_.waiting + static_cast<std::int64_t>(arrivals_.size());
    const std::int64_t room = std::int64_t{options_.scheduler.max_batch} + max_queue_ - live;
    if (static_cast<std::int64_t>(sequences.size()) > room) {
      return MakeError(absl::StatusCode::kResourceExhausted,
                       absl::StrCat("the queue is full: ", load_.waiting,
                                    " answers wait, limits.max_queue is ", max_queue_),
                       {.reason = "QUEUE_FULL", .field = {}, .retry_after = absl::Seconds(1)});
    }
    for (SequenceSpec& sequence : sequences) arrivals_.push_back(std::move(sequence));
    changed_.notify_one();
    return absl::OkStatus();
  }

  void Cancel(const std::vector<SequenceId>& ids, FinishReason reason) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const SequenceId id : ids) cancellations_.emplace_back(id, reason);
    changed_.notify_one();
  }

  void SetTenantWeights(std::map<std::string, double> weights) {
    std::lock_guard<std::mutex> lock(mutex_);
    weights_ = std::move(weights);
    changed_.notify_one();
  }

  void SetMaxQueue(int max_queue) {
    PENSTOCK_CHECK(max_queue >= 1) << "max_queue: got " << max_queue;
    std::lock_guard<std::mutex> lock(mutex_);
    max_queue_ = max_queue;
  }

  void SetShadowSampling(const ShadowSampling& sampling) { shadows_.SetSampling(sampling); }

  SchedulerLoad Load() const {
    std::lock_guard<std::mutex> lock(mutex_);
    SchedulerLoad load = load_;
    load.waiting += static_cast<int>(arrivals_.size());
    return load;
  }

  void Start() {
    PENSTOCK_CHECK(!thread_.joinable()) << "the engine runs already";
    thread_ = std::thread([this] { Loop(); });
  }

  void Stop() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopped_ = true;
      changed_.notify_one();
    }
    if (thread_.joinable()) thread_.join();
  }

  bool RunStep() {
    bool worked = TakeMessages();
    while (lost_engine_.ok() && static_cast<int>(in_flight_.size()) < model_->max_in_flight()) {
      std::optional<StepPlan> plan = scheduler_->PlanStep(clock_->Monotonic());
      if (!plan) break;
      const ShadowOutcome shadow = shadows_.Choose(*plan);
      in_flight_.push_back(
          {std::make_unique<StepPlan>(*std::move(plan)), shadow, clock_->Monotonic()});
      model_->Submit(*in_flight_.back().plan);
      worked = true;
    }
    std::optional<StepEvent> step;
    if (!in_flight_.empty()) step = CommitOldest();
    std::vector<SequenceEvent> events = scheduler_->TakeEvents();
    worked |= !events.empty() || !refused_.empty() || !refused_background_.empty();
    Deliver(std::move(events), step);
    ReportLoad();
    return worked || step.has_value();
  }

 private:
  struct InFlight {
    std::unique_ptr<StepPlan> plan;  // the model keeps a reference until Await
    ShadowOutcome shadow = ShadowOutcome::kNone;
    absl::Duration submitted;
  };
  struct LastToken {
    std::string router;
    bool background = false;
    absl::Duration at = -absl::InfiniteDuration();  // none yet
  };

  void Loop() {
    while (true) {
      {
        std::lock_guard<std::mutex> lock(mutex_);
        if (stopped_) return;
      }
      if (RunStep()) continue;
      std::unique_lock<std::mutex> lock(mutex_);
      const auto woken = [this] {
        return stopped_ || !arrivals_.empty() || !cancellations_.empty() || weights_;
      };
      if (scheduler_->Idle()) {
        changed_.wait(lock, woken);
      } else {
        changed_.wait_for(lock, kBlockedPause, woken);
      }
    }
  }

  // Moves what other threads handed over into the scheduler.
  bool TakeMessages() {
    std::vector<SequenceSpec> arrivals;
    std::vector<std::pair<SequenceId, FinishReason>> cancellations;
    std::optional<std::map<std::string, double>> weights;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      arrivals.swap(arrivals_);
      cancellations.swap(cancellations_);
      weights.swap(weights_);
      // Until the next report these count as waiting; otherwise Submit would see room that is not
      // there.
      load_.waiting += static_cast<int>(arrivals.size());
    }
    if (weights) {
      if (const absl::Status status = scheduler_->SetTenantWeights(*std::move(weights));
          !status.ok()) {
        Log(LogLevel::kError, "tenant weights kept", {{"status", std::string(status.message())}});
      }
    }
    for (SequenceSpec& sequence : arrivals) {
      const SequenceId id = sequence.id;
      std::string router = sequence.router == nullptr ? "" : sequence.router->name;
      const bool background = sequence.background;
      const absl::Status status =
          lost_engine_.ok() ? scheduler_->Enqueue(std::move(sequence), clock_->Monotonic())
                            : lost_engine_;
      if (status.ok()) {
        live_[id] = {.router = std::move(router), .background = background};
        continue;
      }
      SequenceEvent refused;
      refused.id = id;
      refused.finish = status.code() == absl::StatusCode::kDeadlineExceeded
                           ? FinishReason::kDeadline
                           : FinishReason::kError;
      refused.error = status;
      (background ? refused_background_ : refused_).push_back(std::move(refused));
    }
    for (const auto& [id, reason] : cancellations) scheduler_->Cancel(id, reason);
    return !arrivals.empty() || !cancellations.empty();
  }

  // Awaits the oldest step and commits what came of it.
  StepEvent CommitOldest() {
    const InFlight oldest = std::move(in_flight_.front());
    in_flight_.pop_front();
    absl::StatusOr<StepResult> result = model_->Await();
    const absl::Duration now = clock_->Monotonic();
    if (!result.ok()) {
      Log(LogLevel::kError, "step failed",
          {{"status", std::string(result.status().ToString())},
           {"rows", std::int64_t{oldest.plan->rows()}}});
      if (result.status().code() == absl::StatusCode::kUnavailable) LoseDevice(result.status());
      StepResult failed;
      failed.sequences.resize(oldest.plan->sequences.size());
      const absl::Status status = lost_engine_.ok() ? result.status() : lost_engine_;
      for (SequenceResult& sequence : failed.sequences) sequence.status = status;
      result = std::move(failed);
    }
    scheduler_->CommitStep(*oldest.plan, *result, now);
    StepEvent step;
    step.phase = PhaseOf(*oldest.plan);
    // Where steps overlap, what a step waited for the one before is no time of its own.
    step.duration = now - std::max(oldest.submitted, committed_);
    committed_ = now;
    step.rows = oldest.plan->rows();
    step.routers = std::move(result->routers);
    step.routing = std::move(result->routing);
    step.routing_steps = result->routing_steps;
    step.expert_passes = result->expert_passes;
    shadows_.Finish(*oldest.plan, oldest.shadow, *result, step);
    return step;
  }

  // Every step that was in flight tells of it; the first one counts.
  void LoseDevice(const absl::Status& status) {
    if (!lost_engine_.ok()) return;
    lost_engine_ =
        MakeError(absl::StatusCode::kUnavailable, std::string(status.message()),
                  {.reason = "DEVICE_LOST", .field = {}, .retry_after = absl::Seconds(5)});
    {
      std::lock_guard<std::mutex> lock(mutex_);
      lost_ = lost_engine_;
    }
    for (const auto& [id, last] : live_) scheduler_->Cancel(id, FinishReason::kError);
    if (options_.on_lost) options_.on_lost(lost_engine_);
  }

  // Reports the step with the gaps between tokens, then hands the events over.
  void Deliver(std::vector<SequenceEvent> events, std::optional<StepEvent>& step) {
    const absl::Duration now = clock_->Monotonic();
    std::vector<SequenceEvent> traffic, background = std::exchange(refused_background_, {});
    for (SequenceEvent& event : events) {
      const auto live = live_.find(event.id);
      const bool of_background = live != live_.end() && live->second.background;
      if (live != live_.end()) Observe(event, live->second, now, step);
      if (event.finish) live_.erase(event.id);
      event.time = now;
      (of_background ? background : traffic).push_back(std::move(event));
    }
    if (step) telemetry_->OnStep(*step);
    for (SequenceEvent& refused : refused_) {
      refused.time = now;
      traffic.push_back(std::move(refused));
    }
    refused_.clear();
    if (!traffic.empty() && handler_) handler_(std::move(traffic));
    if (!background.empty() && background_handler_) background_handler_(std::move(background));
  }

  void Observe(SequenceEvent& event, LastToken& last, absl::Duration now,
               std::optional<StepEvent>& step) {
    if (!event.tokens.empty()) {
      if (step && last.at != -absl::InfiniteDuration())
        step->gaps.push_back({last.router, now - last.at});
      last.at = now;
    }
    if (event.finish == FinishReason::kError && event.error.ok()) event.error = lost_engine_;
  }

  void ReportLoad() {
    const SchedulerLoad load = scheduler_->Load();
    {
      std::lock_guard<std::mutex> lock(mutex_);
      load_ = load;
    }
    telemetry_->OnLoad({.running = load.running,
                        .waiting = load.waiting,
                        .blocks_free = load.blocks_free,
                        .blocks_active = load.blocks_active,
                        .blocks_cached = load.blocks_cached,
                        .preemptions = load.preemptions,
                        .background_rows = load.background_rows});
  }

  const std::unique_ptr<Model> model_;
  const std::unique_ptr<Scheduler> scheduler_;
  const Options options_;
  Telemetry* const telemetry_;
  const Clock* const clock_;
  std::function<void(std::vector<SequenceEvent>)> handler_, background_handler_;

  // Engine thread.
  ShadowSteps shadows_;
  std::deque<InFlight> in_flight_;
  absl::Duration committed_ = -absl::InfiniteDuration();  // the last step
  absl::flat_hash_map<SequenceId, LastToken> live_;
  std::vector<SequenceEvent> refused_, refused_background_;
  absl::Status lost_engine_;

  // Handed over between threads.
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<SequenceSpec> arrivals_;
  std::vector<std::pair<SequenceId, FinishReason>> cancellations_;
  std::optional<std::map<std::string, double>> weights_;
  SchedulerLoad load_;
  int max_queue_;
  absl::Status lost_;
  bool stopped_ = false;

  std::thread thread_;
};

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(std::unique_ptr<Model> model,
                                                       Options options, Telemetry* telemetry,
                                                       const Clock* clock) {
  const ModelSpec& spec = model->spec();
  Scheduler::Options scheduling = options.scheduler;
  scheduling.block_tokens = spec.block_tokens;
  scheduling.num_blocks = spec.num_blocks;
  scheduling.max_uncommitted = model->max_in_flight();
  // Submit holds the line, which SetMaxQueue moves, for queue and batch together: what arrives
  // between two steps may exceed the queue while places are free. What it let in is not refused
  // again.
  if (scheduling.max_queue >= 1) scheduling.max_queue = std::numeric_limits<int>::max();
  PENSTOCK_ASSIGN_OR_RETURN(std::unique_ptr<Scheduler> scheduler, Scheduler::Create(scheduling));
  return std::unique_ptr<Engine>(new Engine(std::make_unique<State>(
      std::move(model), std::move(scheduler), std::move(options), telemetry, clock)));
}

Engine::Engine(std::unique_ptr<State> state) : state_(std::move(state)) {}
Engine::~Engine() { state_->Stop(); }
const ModelSpec& Engine::model_spec() const { return state_->model_spec(); }
void Engine::SetEventHandler(std::function<void(std::vector<SequenceEvent>)> handler) {
  state_->SetEventHandler(std::move(handler));
}
void Engine::SetBackgroundHandler(std::function<void(std::vector<SequenceEvent>)> handler) {
  state_->SetBackgroundHandler(std::move(handler));
}
absl::Status Engine::Submit(std::vector<SequenceSpec> sequences) {
  return state_->Submit(std::move(sequences));
}
void Engine::Cancel(const std::vector<SequenceId>& ids, FinishReason reason) {
  state_->Cancel(ids, reason);
}
void Engine::SetTenantWeights(std::map<std::string, double> weights) {
  state_->SetTenantWeights(std::move(weights));
}
void Engine::SetMaxQueue(int max_queue) { state_->SetMaxQueue(max_queue); }
void Engine::SetShadowSampling(const ShadowSampling& sampling) {
  state_->SetShadowSampling(sampling);
}
SchedulerLoad Engine::Load() const { return state_->Load(); }
void Engine::Start() { state_->Start(); }
void Engine::Stop() { state_->Stop(); }
bool Engine::RunStep() { return state_->RunStep(); }

}  // namespace penstock
