#include "server/engine/admission_control.h"

#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"

namespace penstock {

// What the two calls have in common, checked.
struct AdmissionControl::Checked {
  std::shared_ptr<const Policy> policy;
  const TenantPolicy* tenant = nullptr;  // of `policy`
  std::string tenant_name;
  RequestBounds bounds;
  std::vector<TokenId> prompt;
  int priority = 5;
  std::string request_id;  // made where the caller gave none
  RequestAssigner::Assignment assignment;
  absl::Time time;  // of the assignment
};

AdmissionControl::AdmissionControl(RequestAssigner* assigner, const TextModel* text, int vocab_size,
                                   const Clock* clock)
    : assigner_(assigner),
      text_(*text),
      vocab_size_(vocab_size),
      clock_(clock),
      random_(std::random_device{}()) {}

template <typename Call>
absl::StatusOr<AdmissionControl::Checked> AdmissionControl::Check(const Call& call) {
  Checked checked;
  checked.policy = assigner_->policy();
  const Policy& policy = *checked.policy;
  if (draining()) {
    return MakeError(absl::StatusCode::kUnavailable,
                     "the server is draining: it takes no new requests",
                     {.reason = "DRAINING", .field = {}, .retry_after = absl::Seconds(1)});
  }
  const Caller& caller = call.caller;
  checked.tenant_name = caller.tenant.empty() ? kDefaultTenant : caller.tenant;
  PENSTOCK_ASSIGN_OR_RETURN(checked.tenant, FindTenant(policy, checked.tenant_name));
  checked.bounds = {.limits = policy.limits,
                    .vocab_size = vocab_size_,
                    .priority_ceiling = checked.tenant->priority_ceiling};
  PENSTOCK_RETURN_IF_ERROR(CheckRequestId(call.request_id));
  if (!call.model.empty() && call.model != policy.model_name) {
    return MakeError(
        absl::StatusCode::kNotFound,
        absl::StrCat("model: got ", call.model, ", want ", policy.model_name, " or nothing"),
        {.reason = "UNKNOWN_MODEL", .field = "model", .retry_after = {}});
  }
  PENSTOCK_RETURN_IF_ERROR(CheckUnit(call.session_id, call.user));
  PENSTOCK_ASSIGN_OR_RETURN(checked.priority, CheckPriority(call.priority, checked.bounds));
  if (caller.deadline <= clock_->Monotonic()) {
    return MakeError(absl::StatusCode::kDeadlineExceeded,
                     "the request's deadline passed before it was taken",
                     {.reason = "DEADLINE", .field = {}, .retry_after = {}});
  }
  checked.request_id = call.request_id.empty()
                           ? absl::StrCat(absl::Hex(RandomSeed(), absl::kZeroPad16))
                           : call.request_id;
  checked.time = clock_->Now();
  AssignmentQuery query;
  query.router = call.router;
  query.tenant = checked.tenant_name;
  query.session_id = call.session_id;
  query.user = call.user;
  query.request_id = checked.request_id;
  query.time = checked.time;
  PENSTOCK_ASSIGN_OR_RETURN(checked.assignment,
                            assigner_->Assign(checked.policy, *checked.tenant, query));
  PENSTOCK_RETURN_IF_ERROR(CheckPromptBytes(call.prompt, checked.bounds));
  PENSTOCK_ASSIGN_OR_RETURN(checked.prompt, TokenizePrompt(text_, call.prompt));
  PENSTOCK_RETURN_IF_ERROR(CheckPromptTokens(checked.prompt, checked.bounds));
  return checked;
}

absl::StatusOr<PreparedRequest> AdmissionControl::Prepare(const GenerateCall& call,
                                                          absl::Duration arrival) {
  PENSTOCK_ASSIGN_OR_RETURN(Checked checked, Check(call));
  const RequestBounds bounds = checked.bounds;
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
  PENSTOCK_ASSIGN_OR_RETURN(std::shared_ptr<const StopStrings> stop,
                            StopStrings::Create(call.stopping.stop));
  PreparedRequest prepared = Describe(call, std::move(checked), arrival);
  spec.prompt = std::move(prepared.sequence.prompt);
  spec.tenant = std::move(prepared.sequence.tenant);
  spec.router = std::move(prepared.sequence.router);
  spec.priority = prepared.sequence.priority;
  spec.deadline = prepared.sequence.deadline;
  prepared.sequence = std::move(spec);
  prepared.choices = choices;
  prepared.stop = std::move(stop);
  return prepared;
}

absl::StatusOr<PreparedRequest> AdmissionControl::Prepare(const ScoreCall& call,
                                                          absl::Duration arrival) {
  PENSTOCK_ASSIGN_OR_RETURN(Checked checked, Check(call));
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
  PENSTOCK_ASSIGN_OR_RETURN(
      const std::optional<int> top,
      CheckLogprobs("top_logprobs", call.top_logprobs.value_or(0), checked.bounds));
  PreparedRequest prepared = Describe(call, std::move(checked), arrival);
  prepared.sequence.output.prompt_logprobs = top;
  prepared.sequence.output.prompt_trace = call.router_trace;
  prepared.sequence.stopping.max_new_tokens = 0;
  PENSTOCK_ASSIGN_OR_RETURN(prepared.stop, StopStrings::Create({}));
  return prepared;
}

// Fills in who asked and what was decided.
template <typename Call>
PreparedRequest AdmissionControl::Describe(const Call& call, Checked checked,
                                           absl::Duration arrival) {
  constexpr bool kGenerates = std::is_same_v<Call, GenerateCall>;
  PreparedRequest prepared;
  prepared.policy = std::move(checked.policy);
  prepared.tenant = checked.tenant;
  prepared.live = std::make_shared<LiveRequest>();
  LiveRequest& live = *prepared.live;
  const RouterChoice& choice = checked.assignment.choice;
  const LoadedRouter& router = *checked.assignment.router;
  live.caller = call.caller;
  live.caller.tenant = checked.tenant_name;
  live.router = checked.assignment.router;
  live.session_id = call.session_id;
  live.user = call.user;
  live.arrival = arrival;
  live.admission = {.request_id = checked.request_id,
                    .model = prepared.policy->model_name,
                    .assignment = {.router = router.name,
                                   .fingerprint = router.fingerprint,
                                   .reason = choice.reason,
                                   .experiment = choice.experiment,
                                   .arm = choice.arm,
                                   .revision = choice.revision,
                                   .bucket = choice.bucket},
                    .prompt_tokens = static_cast<int>(checked.prompt.size())};
  if (!choice.experiment.empty()) {
    live.assigned = {.request_id = checked.request_id,
                     .tenant = checked.tenant_name,
                     .generates = kGenerates,
                     .choice = choice,
                     .fingerprint = router.fingerprint,
                     .time = checked.time};
    if (kGenerates && checked.tenant->paired_scoring) live.prompt = checked.prompt;
  }
  if (prepared.policy->log_prompts) {
    live.prompt_text = text_.tokenizer->Decode(checked.prompt, /*skip_special=*/false);
  }
  prepared.sequence.tenant = checked.tenant_name;
  prepared.sequence.router = std::move(checked.assignment.router);
  prepared.sequence.prompt = std::move(checked.prompt);
  prepared.sequence.priority = checked.priority;
  prepared.sequence.deadline = call.caller.deadline;
  return prepared;
}

std::uint64_t AdmissionControl::RandomSeed() {
  std::lock_guard<std::mutex> lock(mutex_);
  return random_();
}

}  // namespace penstock
