#include "server/engine/frontend.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "server/base/check.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/engine/admission_control.h"
#include "server/engine/live_request.h"
#include "server/engine/request_report.h"
#include "server/engine/tenant_quota.h"

namespace penstock {
namespace {

// A sequence id is its request's number and, in the low bits, its choice.
constexpr int kChoiceBits = 8;

SequenceId MakeSequenceId(std::uint64_t request, int choice) {
  return request << kChoiceBits | choice;
}

absl::Status StatusOfFinish(const SequenceEvent& event) {
  switch (*event.finish) {
    case FinishReason::kError:
      return event.error;
    case FinishReason::kDeadline:
      return MakeError(absl::StatusCode::kDeadlineExceeded, "the request's deadline passed",
                       {.reason = "DEADLINE", .field = {}, .retry_after = {}});
    case FinishReason::kCancelled:
      return absl::CancelledError("the caller cancelled");
    case FinishReason::kStop:
    case FinishReason::kLength:
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

class FrontendImpl final : public Frontend {
 public:
  FrontendImpl(Engine* engine, RouterSet* routers, TextModel text, Policy policy,
               Telemetry* telemetry, const Clock* clock, std::vector<ExperimentObserver*> observers)
      : engine_(engine),
        text_(std::move(text)),
        clock_(clock),
        assigner_(routers, std::move(policy)),
        admission_(&assigner_, &text_, engine->model_spec().vocab_size, clock),
        measured_(!observers.empty()),
        report_(routers, telemetry, std::move(observers), clock) {
    engine_->SetEventHandler([this](std::vector<SequenceEvent> events) {
      std::lock_guard<std::mutex> lock(mutex_);
      inbox_.push_back({.admitted = nullptr, .events = std::move(events)});
      arrived_.notify_one();
    });
    responder_ = std::thread([this] { Respond(); });
  }

  ~FrontendImpl() override {
    engine_->Stop();
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stopped_ = true;
      arrived_.notify_one();
    }
    responder_.join();
  }

  absl::StatusOr<std::uint64_t> Generate(GenerateCall call,
                                         std::shared_ptr<ResponseObserver> observer) override {
    return Begin(call, std::move(observer));
  }

  absl::StatusOr<std::uint64_t> Score(ScoreCall call,
                                      std::shared_ptr<ResponseObserver> observer) override {
    return Begin(call, std::move(observer));
  }

  void Cancel(std::uint64_t request) override {
    std::shared_ptr<LiveRequest> live;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      const auto found = live_.find(request);
      if (found == live_.end()) return;
      live = found->second;
    }
    engine_->Cancel(live->sequences, FinishReason::kCancelled);
  }

  const TextModel& text() const override { return text_; }

  std::shared_ptr<const Policy> policy() const override { return assigner_.policy(); }

  void SetPolicy(Policy policy) override {
    std::map<std::string, double> weights;
    for (const auto& [name, tenant] : policy.tenants) weights[name] = tenant.weight;
    engine_->SetTenantWeights(std::move(weights));
    assigner_.SetPolicy(std::move(policy));
  }

  absl::StatusOr<RequestAssigner::Explanation> Explain(const AssignmentQuery& query) override {
    return assigner_.Explain(query);
  }

  std::map<std::string, std::string> ExperimentRevisions() override {
    return assigner_.Revisions();
  }

  void BeginDrain() override { admission_.BeginDrain(); }
  bool draining() const override { return admission_.draining(); }

  int live() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    return static_cast<int>(live_.size());
  }

  int live(const LoadedRouter& router) const override {
    std::lock_guard<std::mutex> lock(mutex_);
    return static_cast<int>(std::count_if(live_.begin(), live_.end(), [&](const auto& entry) {
      return entry.second->router.get() == &router;
    }));
  }

  void CancelAll(const absl::Status& status) override {
    std::lock_guard<std::mutex> lock(mutex_);
    cut_status_ = status;
    for (const auto& [number, live] : live_)
      engine_->Cancel(live->sequences, FinishReason::kCancelled);
  }

 private:
  // One message to the response thread: a request that was admitted, or events of the engine.
  struct Message {
    std::shared_ptr<LiveRequest> admitted;
    std::vector<SequenceEvent> events;
  };

  template <typename Call>
  absl::StatusOr<std::uint64_t> Begin(const Call& call,
                                      std::shared_ptr<ResponseObserver> observer) {
    const absl::Duration arrival = clock_->Monotonic();
    absl::StatusOr<std::uint64_t> number = Start(call, arrival, std::move(observer));
    if (!number.ok()) report_.Refused(call.caller, call.router, number.status(), arrival);
    return number;
  }

  template <typename Call>
  absl::StatusOr<std::uint64_t> Start(const Call& call, absl::Duration arrival,
                                      std::shared_ptr<ResponseObserver> observer) {
    PENSTOCK_ASSIGN_OR_RETURN(PreparedRequest prepared, admission_.Prepare(call, arrival));
    const std::shared_ptr<LiveRequest> live = prepared.live;
    live->observer = std::move(observer);
    PENSTOCK_RETURN_IF_ERROR(Submit(live, prepared));
    return live->number;
  }

  absl::Status Submit(const std::shared_ptr<LiveRequest>& live, const PreparedRequest& prepared) {
    const std::string& tenant = live->caller.tenant;
    absl::Status quota = quota_.Acquire(tenant, *prepared.tenant, live->admission.prompt_tokens,
                                        clock_->Monotonic());
    if (!quota.ok()) {
      report_.Throttled(tenant, quota);
      return quota;
    }
    live->open = prepared.choices;
    for (int choice = 0; choice < prepared.choices; ++choice)
      live->choices.emplace_back(choice, text_.tokenizer, prepared.stop);
    if (measured_ && live->assigned) live->measures.resize(live->choices.size());
    std::vector<SequenceSpec> sequences;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      live->number = ++last_number_;
      for (int choice = 0; choice < prepared.choices; ++choice) {
        SequenceSpec sequence = prepared.sequence;
        sequence.id = MakeSequenceId(live->number, choice);
        sequence.sampling.choice = static_cast<std::uint32_t>(choice);
        // The prompt is the same for every choice: the first one's scores and traces are enough.
        if (choice > 0) {
          sequence.output.prompt_logprobs.reset();
          sequence.output.prompt_trace = false;
        }
        live->sequences.push_back(sequence.id);
        sequences.push_back(std::move(sequence));
      }
      live_[live->number] = live;
    }
    absl::Status submitted = engine_->Submit(std::move(sequences));
    std::lock_guard<std::mutex> lock(mutex_);
    if (!submitted.ok()) {
      live_.erase(live->number);
      quota_.Release(tenant, 0);
      report_.Throttled(tenant, submitted);
      return submitted;
    }
    inbox_.push_back({.admitted = live, .events = {}});
    arrived_.notify_one();
    return absl::OkStatus();
  }

  // Response thread.
  void Respond() {
    while (true) {
      std::deque<Message> messages;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        arrived_.wait(lock, [this] { return stopped_ || !inbox_.empty(); });
        if (inbox_.empty()) return;
        messages.swap(inbox_);
      }
      for (Message& message : messages) {
        if (message.admitted) Announce(*message.admitted);
        for (SequenceEvent& event : message.events) Handle(event);
      }
    }
  }

  // Once, when the engine has taken the request: its first event may be here before its admission.
  void Announce(LiveRequest& live) {
    if (std::exchange(live.announced, true)) return;
    report_.Admitted(live);
    live.observer->OnAdmitted(live.admission);
  }

  void Handle(SequenceEvent& event) {
    std::shared_ptr<LiveRequest> live;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      const auto found = live_.find(event.id >> kChoiceBits);
      if (found == live_.end()) return;
      live = found->second;
    }
    Announce(*live);
    const int index = static_cast<int>(event.id & ((1 << kChoiceBits) - 1));
    ChoiceStream& choice = live->choices[index];
    Delta delta;
    delta.prompt_scores = std::move(event.prompt_scores);
    std::vector<RowTrace> answer_traces;
    for (RowTrace& trace : event.traces) {
      const bool of_prompt = trace.position < live->admission.prompt_tokens;
      (of_prompt ? delta.prompt_traces : answer_traces).push_back(std::move(trace));
    }
    event.traces = std::move(answer_traces);

    ChoiceDelta choice_delta;
    const bool was_open = !choice.finished();
    if (choice.Add(event, &choice_delta)) engine_->Cancel({event.id}, FinishReason::kStop);
    if (!live->measures.empty()) {
      live->measures[index].Add(choice_delta.tokens, event.time);
    }
    const bool changed = !choice_delta.tokens.empty() || !choice_delta.text.empty() ||
                         choice_delta.finish || !choice_delta.traces.empty();
    if (was_open && changed) {
      if (index == 0 && choice_delta.finish) live->finish = std::string(Name(*choice_delta.finish));
      delta.choices.push_back(std::move(choice_delta));
    }
    if (!live->muted &&
        (!delta.choices.empty() || !delta.prompt_scores.empty() || !delta.prompt_traces.empty()) &&
        !live->observer->OnDelta(std::move(delta))) {
      Fail(live.get(),
           MakeError(absl::StatusCode::kResourceExhausted,
                     "the reader is too slow: limits.max_stream_queue messages wait for it",
                     {.reason = "SLOW_READER", .field = {}, .retry_after = {}}));
    }
    if (event.finish) Ended(live, index, was_open, event);
  }

  // Ends the whole request with `status`, unless it failed already.
  void Fail(LiveRequest* live, const absl::Status& status) {
    live->muted = true;
    if (!live->status.ok()) return;
    live->status = status;
    engine_->Cancel(live->sequences, FinishReason::kCancelled);
  }

  // A sequence is over; with the last one the request is.
  void Ended(const std::shared_ptr<LiveRequest>& live, int index, bool was_open,
             const SequenceEvent& event) {
    // A choice that a stop string finished keeps its own end, however its sequence ended.
    absl::Status status = was_open ? StatusOfFinish(event) : absl::OkStatus();
    if (absl::IsCancelled(status)) {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!cut_status_.ok()) status = cut_status_;
    }
    if (!status.ok() && live->status.ok()) {
      const bool failed = *event.finish == FinishReason::kError;
      live->status = status;
      if (failed) Fail(live.get(), status);
    }
    if (index == 0) live->first = event.stats;
    if (--live->open > 0) return;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      live_.erase(live->number);
    }
    const Summary summary = report_.Ended(*live);
    quota_.Release(live->caller.tenant, summary.completion_tokens);
    live->observer->OnFinished(live->status, summary);
    live->observer.reset();
  }

  Engine* const engine_;
  const TextModel text_;
  const Clock* const clock_;
  RequestAssigner assigner_;
  AdmissionControl admission_;
  const bool measured_;
  const RequestReport report_;
  TenantQuota quota_;

  mutable std::mutex mutex_;
  absl::flat_hash_map<std::uint64_t, std::shared_ptr<LiveRequest>> live_;
  std::uint64_t last_number_ = 0;
  bool stopped_ = false;
  absl::Status cut_status_;  // what cancelled requests are told once CancelAll was called
  std::condition_variable arrived_;
  std::deque<Message> inbox_;
  std::thread responder_;
};

}  // namespace

std::unique_ptr<Frontend> Frontend::Create(Engine* engine, RouterSet* routers, TextModel text,
                                           Policy policy, Telemetry* telemetry, const Clock* clock,
                                           std::vector<ExperimentObserver*> observers) {
  PENSTOCK_CHECK(text.tokenizer != nullptr) << "a frontend needs a tokenizer";
  return std::make_unique<FrontendImpl>(engine, routers, std::move(text), std::move(policy),
                                        telemetry, clock, std::move(observers));
}

}  // namespace penstock
