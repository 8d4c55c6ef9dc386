#include "server/engine/request_report.h"

#include <optional>
#include <utility>

#include "server/base/error.h"
#include "server/base/log.h"
#include "server/engine/policy.h"

namespace penstock {
namespace {

// Bytes of a refusal in the log: it holds the client's own value.
constexpr std::size_t kMaxLoggedError = 400;

}  // namespace

RequestReport::RequestReport(const RouterSet* routers, Telemetry* telemetry,
                             std::vector<ExperimentObserver*> observers, const Clock* clock)
    : routers_(routers), telemetry_(telemetry), observers_(std::move(observers)), clock_(clock) {}

void RequestReport::Admitted(const LiveRequest& live) const {
  if (!live.assigned) return;
  for (ExperimentObserver* observer : observers_) observer->OnAssigned(*live.assigned);
}

Summary RequestReport::Ended(const LiveRequest& live) const {
  Summary summary = Summarize(live);
  const std::string code = absl::StatusCodeToString(live.status.code());
  TellTelemetry(live, summary, code);
  if (live.assigned && !observers_.empty()) TellExperiments(live, summary);
  const RouterAssignment& assignment = live.admission.assignment;
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
  return summary;
}

Summary RequestReport::Summarize(const LiveRequest& live) const {
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

void RequestReport::TellTelemetry(const LiveRequest& live, const Summary& summary,
                                  const std::string& code) const {
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
}

void RequestReport::TellExperiments(const LiveRequest& live, const Summary& summary) const {
  RequestOutcome outcome;
  outcome.request = *live.assigned;
  outcome.time = clock_->Now();
  outcome.code = live.status.code();
  if (const std::optional<ErrorDetail> detail = GetErrorDetail(live.status)) {
    outcome.error_reason = detail->reason;
  }
  outcome.non_finite_logits = outcome.error_reason == "NON_FINITE_LOGITS" ||
                              outcome.error_reason == "NON_FINITE_ROUTER_LOGIT";
  outcome.prompt_tokens = summary.prompt_tokens;
  outcome.cached_prompt_tokens = summary.cached_prompt_tokens;
  outcome.completion_tokens = summary.completion_tokens;
  outcome.total = summary.total;
  outcome.answered = summary.first_token > absl::ZeroDuration();
  outcome.time_to_first_token = summary.first_token;
  for (const AnswerMeasures& measures : live.measures) measures.AddTo(&outcome);
  if (!live.prompt.empty()) {
    outcome.prompt = live.prompt;
    outcome.answer = live.measures.front().tokens();
  }
  for (ExperimentObserver* observer : observers_) observer->OnRequestEnded(outcome);
}

void RequestReport::Refused(const Caller& caller, const std::string& router,
                            const absl::Status& status, absl::Duration arrival) const {
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

void RequestReport::Throttled(const std::string& tenant, const absl::Status& status) const {
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  if (!detail) return;
  if (detail->reason == "QUEUE_FULL") telemetry_->OnThrottled(tenant, "queue");
  if (detail->reason == "CONCURRENT") telemetry_->OnThrottled(tenant, "concurrent");
  if (detail->reason == "REQUESTS_PER_SECOND")
    telemetry_->OnThrottled(tenant, "requests_per_second");
  if (detail->reason == "TOKENS_PER_SECOND") telemetry_->OnThrottled(tenant, "tokens_per_second");
}

}  // namespace penstock
