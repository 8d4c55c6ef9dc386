#include "server/rpc/request_convert.h"

#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"

namespace penstock {
namespace {

// google/protobuf/duration.proto: ±10,000 years.
constexpr std::int64_t kMaxSeconds = 315'576'000'000;
constexpr std::int32_t kMaxNanos = 999'999'999;

std::vector<TokenId> TakeIds(v1::TokenIds* ids) { return {ids->ids().begin(), ids->ids().end()}; }

std::vector<ChatMessage> TakeMessages(v1::ChatPrompt* chat) {
  std::vector<ChatMessage> messages;
  messages.reserve(chat->messages_size());
  for (v1::ChatMessage& message : *chat->mutable_messages()) {
    ChatMessage taken;
    taken.role = std::move(*message.mutable_role());
    taken.content = std::move(*message.mutable_content());
    messages.push_back(std::move(taken));
  }
  return messages;
}

// Of GenerateRequest and ScoreRequest, whose oneofs have the same members.
template <typename Request>
Prompt TakePrompt(Request* request) {
  if (request->has_text()) return std::move(*request->mutable_text());
  if (request->has_token_ids()) return TakeIds(request->mutable_token_ids());
  if (request->has_chat()) return TakeMessages(request->mutable_chat());
  return std::monostate();
}

SamplingOptions ToSampling(const v1::SamplingOptions& from) {
  SamplingOptions to;
  if (from.has_temperature()) to.temperature = from.temperature();
  if (from.has_top_p()) to.top_p = from.top_p();
  if (from.has_top_k()) to.top_k = from.top_k();
  if (from.has_min_p()) to.min_p = from.min_p();
  if (from.has_seed()) to.seed = from.seed();
  if (from.has_repetition_penalty()) to.repetition_penalty = from.repetition_penalty();
  if (from.has_presence_penalty()) to.presence_penalty = from.presence_penalty();
  if (from.has_frequency_penalty()) to.frequency_penalty = from.frequency_penalty();
  for (const auto& [id, bias] : from.logit_bias()) to.logit_bias[id] = bias;
  if (from.has_n()) to.n = from.n();
  return to;
}

StoppingOptions ToStopping(v1::StoppingOptions* from) {
  StoppingOptions to;
  if (from->has_max_new_tokens()) to.max_new_tokens = from->max_new_tokens();
  if (from->has_min_new_tokens()) to.min_new_tokens = from->min_new_tokens();
  for (std::string& stop : *from->mutable_stop()) to.stop.push_back(std::move(stop));
  to.stop_token_ids.assign(from->stop_token_ids().begin(), from->stop_token_ids().end());
  to.ignore_eos = from->ignore_eos();
  return to;
}

}  // namespace

absl::StatusOr<GenerateCall> ToGenerateCall(v1::GenerateRequest request, Caller caller) {
  GenerateCall call;
  if (request.has_ttft_slo()) {
    PENSTOCK_ASSIGN_OR_RETURN(call.ttft_slo, ToDuration("ttft_slo", request.ttft_slo()));
  }
  if (request.has_tpot_slo()) {
    PENSTOCK_ASSIGN_OR_RETURN(call.tpot_slo, ToDuration("tpot_slo", request.tpot_slo()));
  }
  call.caller = std::move(caller);
  call.request_id = std::move(*request.mutable_request_id());
  call.model = std::move(*request.mutable_model());
  call.prompt = TakePrompt(&request);
  call.router = std::move(*request.mutable_router());
  call.session_id = request.unit().session_id();
  call.user = request.unit().user();
  call.sampling = ToSampling(request.sampling());
  if (request.has_stopping()) call.stopping = ToStopping(request.mutable_stopping());
  const v1::ResponseOptions& response = request.response();
  if (response.has_logprobs()) call.logprobs = response.logprobs();
  if (response.has_prompt_logprobs()) call.prompt_logprobs = response.prompt_logprobs();
  call.router_trace = response.router_trace();
  call.prompt_router_trace = response.prompt_router_trace();
  call.bypass_cache = request.cache().bypass();
  call.cache_salt = request.cache().salt();
  if (request.has_priority()) call.priority = request.priority();
  return call;
}

absl::StatusOr<ScoreCall> ToScoreCall(v1::ScoreRequest request, Caller caller) {
  ScoreCall call;
  call.caller = std::move(caller);
  call.request_id = std::move(*request.mutable_request_id());
  call.model = std::move(*request.mutable_model());
  call.prompt = TakePrompt(&request);
  call.router = std::move(*request.mutable_router());
  call.session_id = request.unit().session_id();
  call.user = request.unit().user();
  if (request.has_top_logprobs()) call.top_logprobs = request.top_logprobs();
  if (request.has_skip_tokens()) call.skip_tokens = request.skip_tokens();
  if (request.has_priority()) call.priority = request.priority();
  call.router_trace = request.router_trace();
  return call;
}

absl::StatusOr<Prompt> ToPrompt(v1::TokenizeRequest request) {
  if (request.has_text()) return Prompt(std::move(*request.mutable_text()));
  if (request.has_chat()) return Prompt(TakeMessages(request.mutable_chat()));
  return InvalidField("input", "nothing", "text or chat");
}

absl::StatusOr<absl::Duration> ToDuration(std::string_view field,
                                          const google::protobuf::Duration& duration) {
  const std::int64_t seconds = duration.seconds();
  const std::int32_t nanos = duration.nanos();
  const bool in_range = seconds >= -kMaxSeconds && seconds <= kMaxSeconds && nanos >= -kMaxNanos &&
                        nanos <= kMaxNanos;
  const bool one_sign = !(seconds > 0 && nanos < 0) && !(seconds < 0 && nanos > 0);
  if (in_range && one_sign) return absl::Seconds(seconds) + absl::Nanoseconds(nanos);
  return InvalidField(field, absl::StrCat("seconds ", seconds, " and nanos ", nanos),
                      absl::StrCat("seconds within ±", kMaxSeconds, ", nanos within ±", kMaxNanos,
                                   ", of one sign"));
}

}  // namespace penstock
