#include "server/rpc/score_call.h"

#include <utility>

#include "server/base/status_macros.h"
#include "server/rpc/request_convert.h"
#include "server/rpc/wire_message.h"

namespace penstock {

absl::Status UnaryScoreCall::Convert(const grpc::ByteBuffer& request, Caller caller) {
  v1::ScoreRequest message;
  PENSTOCK_RETURN_IF_ERROR(ParseMessage(request, &message));
  PENSTOCK_ASSIGN_OR_RETURN(request_, ToScoreCall(std::move(message), std::move(caller)));
  shape_ = MakeReplyShape(context(), /*token_ids=*/true, /*scores=*/true);
  skipped_tokens_ = request_.skip_tokens.value_or(0);
  return absl::OkStatus();
}

absl::StatusOr<std::uint64_t> UnaryScoreCall::Submit() {
  return context().frontend->Score(std::move(request_), shared_from_this());
}

void UnaryScoreCall::OnAdmitted(const Admission& admission) {
  response_.set_request_id(admission.request_id);
  response_.set_model(admission.model);
  *response_.mutable_assignment() = ToProto(admission.assignment);
}

bool UnaryScoreCall::OnDelta(Delta delta) {
  for (const ScoredToken& score : delta.prompt_scores) {
    if (next_position_++ < skipped_tokens_) continue;
    SetScore(score, shape_, response_.add_scores());
    response_.set_total_logprob(response_.total_logprob() + score.token.logprob);
  }
  if (!delta.prompt_traces.empty()) {
    AppendTrace(delta.prompt_traces, shape_, response_.mutable_trace());
  }
  return true;
}

const google::protobuf::Message& UnaryScoreCall::Reply(const Summary& summary) {
  *response_.mutable_usage() = ToUsage(summary);
  *response_.mutable_timing() = ToTiming(summary);
  return response_;
}

}  // namespace penstock
