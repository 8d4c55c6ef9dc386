#include "server/engine/frontend.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>
#include <thread>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/error.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/engine/live_request.h"
#include "server/engine/request_checks.h"
#include "server/engine/tenant_quota.h"

namespace penstock {
namespace {

constexpr char kDefaultTenant[] = "default";
// Bytes of a refusal in the log: it holds the client's own value.
constexpr std::size_t kMaxLoggedError = 400;
// A sequence id is its request's number and, in the low bits, its choice.
constexpr int kChoiceBits = 8;

SequenceId MakeSequenceId(std::uint64_t request, int choice) {
  return request << kChoiceBits | choice;
}

// What the two calls have in common, checked.
struct Checked {
  std::shared_ptr<const Policy> policy;
  const TenantPolicy* tenant = nullptr;  // of `policy`
  RequestBounds bounds;
  std::vector<TokenId> prompt;
  int priority = 5;
  std::string request_id;  // made where the caller gave none
  RouterChoice choice;
  std::shared_ptr<const LoadedRouter> router;
};

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
               Telemetry* telemetry, const Clock* clock)
      : engine_(engine),
        routers_(routers),
        text_(std::move(text)),
        telemetry_(telemetry),
        clock_(clock),
        policy_(std::make_shared<const Policy>(std::move(policy))),
        random_(std::random_device{}()) {
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
    const absl::Duration arrival = clock_->Monotonic();
    auto live = std::make_shared<LiveRequest>();
    absl::Status status = StartGenerate(call, live, arrival, std::move(observer));
    if (!status.ok()) {
      Refused(call.caller, call.router, status, arrival);
      return status;
    }
    return live->number;
  }

  absl::StatusOr<std::uint64_t> Score(ScoreCall call,
                                      std::shared_ptr<ResponseObserver> observer) override {
    const absl::Duration arrival = clock_->Monotonic();
    auto live = std::make_shared<LiveRequest>();
    absl::Status status = StartScore(call, live, arrival, std::move(observer));
    if (!status.ok()) {
      Refused(call.caller, call.router, status, arrival);
      return status;
    }
    return live->number;
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

  std::shared_ptr<const Policy> policy() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    return policy_;
  }

  void SetPolicy(Policy policy) override {
    std::map<std::string, double> weights;
    for (const auto& [name, tenant] : policy.tenants) weights[name] = tenant.weight;
    engine_->SetTenantWeights(std::move(weights));
    std::lock_guard<std::mutex> lock(mutex_);
    policy_ = std::make_shared<const Policy>(std::move(policy));
  }

  void BeginDrain() override {
    std::lock_guard<std::mutex> lock(mutex_);
    draining_ = true;
  }

  bool draining() const override {
    std::lock_guard<std::mutex> lock(mutex_);
    return draining_;
  }

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

  absl::StatusOr<Checked> Check(const Caller& caller, const std::string& request_id,
                                const std::string& model, const Prompt& prompt,
                                const std::string& router, const std::string& session_id,
                                const std::string& user, std::optional<std::int64_t> priority) {
    Checked checked;
    checked.policy = policy();
    const Policy& policy = *checked.policy;
    if (draining()) {
      return MakeError(absl::StatusCode::kUnavailable,
                       "the server is draining: it takes no new requests",
                       {.reason = "DRAINING", .field = {}, .retry_after = absl::Seconds(1)});
    }
    const std::string tenant = caller.tenant.empty() ? kDefaultTenant : caller.tenant;
    const auto found = policy.tenants.find(tenant);
    if (found == policy.tenants.end()) {
      return InvalidField("x-penstock-tenant", absl::StrCat("\"", tenant, "\""),
                          "a configured tenant");
    }
    checked.tenant = &found->second;
    checked.bounds = {.limits = policy.limits,
                      .vocab_size = engine_->model_spec().vocab_size,
                      .priority_ceiling = found->second.priority_ceiling};
    PENSTOCK_RETURN_IF_ERROR(CheckRequestId(request_id));
    if (!model.empty() && model != policy.model_name) {
      return MakeError(
          absl::StatusCode::kNotFound,
          absl::StrCat("model: got ", model, ", want ", policy.model_name, " or nothing"),
          {.reason = "UNKNOWN_MODEL", .field = "model", .retry_after = {}});
    }
    PENSTOCK_RETURN_IF_ERROR(CheckUnit(session_id, user));
    PENSTOCK_ASSIGN_OR_RETURN(checked.priority, CheckPriority(priority, checked.bounds));
    if (caller.deadline <= clock_->Monotonic()) {
      return MakeError(absl::StatusCode::kDeadlineExceeded,
                       "the request's deadline passed before it was taken",
                       {.reason = "DEADLINE", .field = {}, .retry_after = {}});
    }
    checked.request_id = request_id.empty() ? MakeRequestId() : request_id;
    AssignmentQuery query;
    query.router = router;
    query.tenant = tenant;
    query.session_id = session_id;
    query.user = user;
    query.request_id = checked.request_id;
    query.time = clock_->Now();
    PENSTOCK_RETURN_IF_ERROR(ChooseRouter(query, &checked));
    PENSTOCK_RETURN_IF_ERROR(CheckPromptBytes(prompt, checked.bounds));
    PENSTOCK_ASSIGN_OR_RETURN(checked.prompt, TokenizePrompt(text_, prompt));
    PENSTOCK_RETURN_IF_ERROR(CheckPromptTokens(checked.prompt, checked.bounds));
    return checked;
  }

  // A router that was loaded meanwhile may have changed the revision: the choice is then made anew,
  // so that a reply never names a revision that its router is not of.
  absl::Status ChooseRouter(const AssignmentQuery& query, Checked* checked) {
    while (true) {
      const std::uint64_t generation = routers_->generation();
      PENSTOCK_ASSIGN_OR_RETURN(
          checked->choice,
          AssignerOf(checked->policy, generation)->Assign(query, checked->tenant->routing));
      PENSTOCK_ASSIGN_OR_RETURN(checked->router, routers_->Find(checked->choice.router));
      if (routers_->generation() == generation) return absl::OkStatus();
    }
  }

  std::shared_ptr<const Assigner> AssignerOf(const std::shared_ptr<const Policy>& policy,
                                             std::uint64_t generation) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (assigner_ != nullptr && assigner_policy_ == policy &&
          assigner_generation_ == generation) {
        return assigner_;
      }
    }
    Assigner::Options options;
    options.default_router = policy->default_router;
    options.traffic_salt = policy->traffic_salt;
    options.experiments = policy->experiments;
    for (const auto& router : routers_->List()) {
      options.fingerprints[router->name] = router->fingerprint;
    }
    auto assigner = std::make_shared<const Assigner>(std::move(options));
    std::lock_guard<std::mutex> lock(mutex_);
    assigner_ = assigner;
    assigner_policy_ = policy;
    assigner_generation_ = generation;
    return assigner;
  }

  absl::Status StartGenerate(const GenerateCall& call, const std::shared_ptr<LiveRequest>& live,
                             absl::Duration arrival, std::shared_ptr<ResponseObserver> observer) {
    PENSTOCK_ASSIGN_OR_RETURN(
        Checked checked, Check(call.caller, call.request_id, call.model, call.prompt, call.router,
                               call.session_id, call.user, call.priority));
    const RequestBounds& bounds = checked.bounds;
    SequenceSpec spec;
    PENSTOCK_ASSIGN_OR_RETURN(spec.sampling,
                              CheckSampling(call.sampling, text_.default_sampling, bounds));
    PENSTOCK_ASSIGN_OR_RETURN(const int choices, CheckChoices(call.sampling, bounds));
    PENSTOCK_ASSIGN_OR_RETURN(
        spec.stopping, CheckStopping(call.stopping, text_.eos_token_ids,
                                     static_cast<std::int64_t>(checked.prompt.size()), bounds));
    PENSTOCK_ASSIGN_OR_RETURN(spec.output.logprobs,
                              CheckLogprobs("response.logprobs", call.logprobs, bounds));
    PENSTOCK_ASSIGN_OR_RETURN(
        spec.output.prompt_logprobs,
        CheckLogprobs("response.prompt_logprobs", call.prompt_logprobs, bounds));
    PENSTOCK_RETURN_IF_ERROR(CheckCacheSalt(call.cache_salt));
    PENSTOCK_RETURN_IF_ERROR(CheckLatencyTarget("ttft_slo", call.ttft_slo));
    PENSTOCK_RETURN_IF_ERROR(CheckLatencyTarget("tpot_slo", call.tpot_slo));
    spec.output.router_trace = call.router_trace;
    spec.output.prompt_trace = call.prompt_router_trace;
    spec.cache_salt = call.cache_salt;
    spec.bypass_cache = call.bypass_cache;
    spec.sampling.seed = call.sampling.seed ? *call.sampling.seed : RandomSeed();
    Describe(live.get(), call, checked, arrival);
    PENSTOCK_ASSIGN_OR_RETURN(std::shared_ptr<const StopStrings> stop,
                              StopStrings::Create(call.stopping.stop));
    return Admit(live, std::move(spec), std::move(checked), choices, std::move(stop),
                 std::move(observer));
  }

  absl::Status StartScore(const ScoreCall& call, const std::shared_ptr<LiveRequest>& live,
                          absl::Duration arrival, std::shared_ptr<ResponseObserver> observer) {
    PENSTOCK_ASSIGN_OR_RETURN(
        Checked checked, Check(call.caller, call.request_id, call.model, call.prompt, call.router,
                               call.session_id, call.user, call.priority));
    const std::int64_t tokens = static_cast<std::int64_t>(checked.prompt.size());
    if (tokens < 2) {
      return InvalidField("input", absl::StrCat(tokens, " token"),
                          "at least 2: the first has no context to score it in");
    }
    const std::int64_t skip = call.skip_tokens.value_or(0);
    if (skip < 0 || skip >= tokens) {
      return InvalidField(
          "skip_tokens", absl::StrCat(skip),
          absl::StrCat("an integer in [0, ", tokens - 1, "]: the text has ", tokens, " tokens"));
    }
    SequenceSpec spec;
    PENSTOCK_ASSIGN_OR_RETURN(
        spec.output.prompt_logprobs,
        CheckLogprobs("top_logprobs", call.top_logprobs.value_or(0), checked.bounds));
    spec.output.prompt_trace = call.router_trace;
    spec.stopping.max_new_tokens = 0;
    Describe(live.get(), call, checked, arrival);
    PENSTOCK_ASSIGN_OR_RETURN(std::shared_ptr<const StopStrings> stop, StopStrings::Create({}));
    return Admit(live, std::move(spec), std::move(checked), 1, std::move(stop),
                 std::move(observer));
  }

  // Fills in who asked and what was decided.
  template <typename Call>
  void Describe(LiveRequest* live, const Call& call, const Checked& checked,
                absl::Duration arrival) {
    live->caller = call.caller;
    if (live->caller.tenant.empty()) live->caller.tenant = kDefaultTenant;
    live->session_id = call.session_id;
    live->user = call.user;
    live->arrival = arrival;
    live->admission = {.request_id = checked.request_id,
                       .model = checked.policy->model_name,
                       .assignment = {.router = checked.router->name,
                                      .fingerprint = checked.router->fingerprint,
                                      .reason = checked.choice.reason,
                                      .experiment = checked.choice.experiment,
                                      .arm = checked.choice.arm,
                                      .revision = checked.choice.revision,
                                      .bucket = checked.choice.bucket},
                       .prompt_tokens = static_cast<int>(checked.prompt.size())};
    if (checked.policy->log_prompts) {
      live->prompt_text = text_.tokenizer->Decode(checked.prompt, /*skip_special=*/false);
    }
  }

  absl::Status Admit(const std::shared_ptr<LiveRequest>& live, SequenceSpec spec, Checked checked,
                     int choices, const std::shared_ptr<const StopStrings>& stop,
                     std::shared_ptr<ResponseObserver> observer) {
    const std::string& tenant = live->caller.tenant;
    absl::Status quota =
        quota_.Acquire(tenant, *checked.tenant, live->admission.prompt_tokens, clock_->Monotonic());
    if (!quota.ok()) {
      Throttled(tenant, quota);
      return quota;
    }
    spec.tenant = tenant;
    spec.router = checked.router;
    live->router = std::move(checked.router);
    spec.priority = checked.priority;
    spec.deadline = live->caller.deadline;
    spec.prompt = std::move(checked.prompt);
    live->observer = std::move(observer);
    live->open = choices;
    for (int choice = 0; choice < choices; ++choice)
      live->choices.emplace_back(choice, text_.tokenizer, stop);
    std::vector<SequenceSpec> sequences;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      live->number = ++last_number_;
      for (int choice = 0; choice < choices; ++choice) {
        SequenceSpec sequence = spec;
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
      // Ahead of any event of its sequences: they are submitted after this.
      inbox_.push_back({.admitted = live, .events = {}});
    }
    absl::Status submitted = engine_->Submit(std::move(sequences));
    std::lock_guard<std::mutex> lock(mutex_);
    if (!submitted.ok()) {
      live_.erase(live->number);
      std::erase_if(inbox_, [&](const Message& message) { return message.admitted == live; });
      quota_.Release(tenant, 0);
      Throttled(tenant, submitted);
      return submitted;
    }
    arrived_.notify_one();
    return absl::OkStatus();
  }

  void Throttled(const std::string& tenant, const absl::Status& status) {
    const std::optional<ErrorDetail> detail = GetErrorDetail(status);
    if (!detail) return;
    if (detail->reason == "QUEUE_FULL") telemetry_->OnThrottled(tenant, "queue");
    if (detail->reason == "CONCURRENT") telemetry_->OnThrottled(tenant, "concurrent");
    if (detail->reason == "REQUESTS_PER_SECOND")
      telemetry_->OnThrottled(tenant, "requests_per_second");
    if (detail->reason == "TOKENS_PER_SECOND") telemetry_->OnThrottled(tenant, "tokens_per_second");
  }

  void Refused(const Caller& caller, const std::string& router, const absl::Status& status,
               absl::Duration arrival) {
    RequestEvent event;
    event.api = caller.api;
    event.tenant = caller.tenant.empty() ? kDefaultTenant : caller.tenant;
    // A name that is not loaded would let clients make metric series.
    if (routers_->Find(router).ok()) event.router = router;
    event.code = absl::StatusCodeToString(status.code());
    event.total = clock_->Monotonic() - arrival;
    telemetry_->OnRequestFinished(event);
    Log(LogLevel::kInfo, "request refused",
        {{"tenant", event.tenant},
         {"code", event.code},
         {"error", std::string(status.message().substr(0, kMaxLoggedError))}});
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
        if (message.admitted) message.admitted->observer->OnAdmitted(message.admitted->admission);
        for (SequenceEvent& event : message.events) Handle(event);
      }
    }
  }

  void Handle(SequenceEvent& event) {
    std::shared_ptr<LiveRequest> live;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      const auto found = live_.find(event.id >> kChoiceBits);
      if (found == live_.end()) return;
      live = found->second;
    }
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
    Summary summary = Summarize(*live);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      live_.erase(live->number);
    }
    quota_.Release(live->caller.tenant, summary.completion_tokens);
    Report(*live, summary);
    live->observer->OnFinished(live->status, summary);
    live->observer.reset();
  }

  Summary Summarize(const LiveRequest& live) const {
    Summary summary;
    const absl::Duration now = clock_->Monotonic();
    const SequenceStats& stats = live.first;
    summary.prompt_tokens = live.admission.prompt_tokens;
    summary.cached_prompt_tokens = stats.cached_prompt_tokens;
    for (const ChoiceStream& choice : live.choices)
      summary.completion_tokens += choice.completion_tokens();
    summary.total = now - live.arrival;
    if (stats.admitted == absl::InfiniteDuration()) return summary;  // it never ran
    summary.queue = stats.admitted - live.arrival;
    const bool answered = stats.first_token != absl::InfiniteDuration();
    const absl::Duration first = answered ? stats.first_token : stats.finished;
    summary.prefill = first - stats.admitted;
    if (answered) {
      summary.first_token = first - live.arrival;
      summary.decode = stats.finished - first;
    }
    return summary;
  }

  void Report(const LiveRequest& live, const Summary& summary) {
    const std::string code = absl::StatusCodeToString(live.status.code());
    const RouterAssignment& assignment = live.admission.assignment;
    RequestEvent event;
    event.api = live.caller.api;
    event.tenant = live.caller.tenant;
    event.router = assignment.router;
    event.code = code;
    event.experiment = assignment.experiment;
    event.revision = assignment.revision;
    event.arm = assignment.arm;
    event.reason = assignment.reason;
    event.prompt_tokens = summary.prompt_tokens;
    event.cached_prompt_tokens = summary.cached_prompt_tokens;
    event.generated_tokens = summary.completion_tokens;
    event.total = summary.total;
    event.queue = summary.queue;
    event.prefill = summary.prefill;
    event.time_to_first_token = summary.first_token;
    event.started = summary.first_token > absl::ZeroDuration();
    telemetry_->OnRequestFinished(event);
    Log(LogLevel::kInfo, "request",
        {{"request_id", live.admission.request_id},
         {"tenant", live.caller.tenant},
         {"router", assignment.router},
         {"reason", assignment.reason},
         {"experiment", assignment.experiment},
         {"arm", assignment.arm},
         {"revision", assignment.revision},
         {"code", code},
         {"finish", live.finish},
         {"prompt_tokens", std::int64_t{summary.prompt_tokens}},
         {"cached_prompt_tokens", std::int64_t{summary.cached_prompt_tokens}},
         {"completion_tokens", std::int64_t{summary.completion_tokens}},
         {"queue_seconds", absl::ToDoubleSeconds(summary.queue)},
         {"first_token_seconds", absl::ToDoubleSeconds(summary.first_token)},
         {"total_seconds", absl::ToDoubleSeconds(summary.total)},
         {"traceparent", live.caller.trace_context},
         {"error", std::string(live.status.message())},
         {"prompt", live.prompt_text}});
  }

  std::uint64_t RandomSeed() {
    std::lock_guard<std::mutex> lock(mutex_);
    return random_();
  }

  std::string MakeRequestId() { return absl::StrCat(absl::Hex(RandomSeed(), absl::kZeroPad16)); }

  Engine* const engine_;
  RouterSet* const routers_;
  const TextModel text_;
  Telemetry* const telemetry_;
  const Clock* const clock_;
  TenantQuota quota_;

  mutable std::mutex mutex_;
  std::shared_ptr<const Policy> policy_;
  // Made from this policy and the routers of this generation.
  std::shared_ptr<const Assigner> assigner_;
  std::shared_ptr<const Policy> assigner_policy_;
  std::uint64_t assigner_generation_ = 0;
  std::mt19937_64 random_;
  absl::flat_hash_map<std::uint64_t, std::shared_ptr<LiveRequest>> live_;
  std::uint64_t last_number_ = 0;
  bool draining_ = false;
  bool stopped_ = false;
  absl::Status cut_status_;  // what cancelled requests are told once CancelAll was called
  std::condition_variable arrived_;
  std::deque<Message> inbox_;
  std::thread responder_;
};

}  // namespace

std::unique_ptr<Frontend> Frontend::Create(Engine* engine, RouterSet* routers, TextModel text,
                                           Policy policy, Telemetry* telemetry,
                                           const Clock* clock) {
  PENSTOCK_CHECK(text.tokenizer != nullptr) << "a frontend needs a tokenizer";
  return std::make_unique<FrontendImpl>(engine, routers, std::move(text), std::move(policy),
                                        telemetry, clock);
}

}  // namespace penstock
