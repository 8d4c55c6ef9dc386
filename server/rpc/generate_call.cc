#include "server/rpc/generate_call.h"

#include <utility>

#include "server/base/status_macros.h"
#include "server/rpc/request_convert.h"
#include "server/rpc/wire_message.h"

namespace penstock {

absl::Status UnaryGenerateCall::Convert(const grpc::ByteBuffer& request, Caller caller) {
  v1::GenerateRequest message;
  PENSTOCK_RETURN_IF_ERROR(ParseMessage(request, &message));
  const bool token_ids = message.response().token_ids();
  PENSTOCK_ASSIGN_OR_RETURN(request_, ToGenerateCall(std::move(message), std::move(caller)));
  shape_ = MakeReplyShape(context(), token_ids, request_.logprobs.has_value());
  return absl::OkStatus();
}

absl::StatusOr<std::uint64_t> UnaryGenerateCall::Submit() {
  return context().frontend->Generate(std::move(request_), shared_from_this());
}

void UnaryGenerateCall::OnAdmitted(const Admission& admission) {
  response_.set_request_id(admission.request_id);
  response_.set_model(admission.model);
  *response_.mutable_assignment() = ToProto(admission.assignment);
}

bool UnaryGenerateCall::OnDelta(Delta delta) {
  for (ChoiceDelta& choice : delta.choices) {
    while (response_.choices_size() <= choice.index) {
      response_.add_choices()->set_index(response_.choices_size() - 1);
    }
    v1::Choice* const proto = response_.mutable_choices(choice.index);
    AppendDelta(std::move(choice), shape_, proto);
  }
  for (const ScoredToken& score : delta.prompt_scores) {
    SetScore(score, shape_, response_.add_prompt_scores());
  }
  if (!delta.prompt_traces.empty()) {
    AppendTrace(delta.prompt_traces, shape_, response_.mutable_prompt_trace());
  }
  return true;
}

const google::protobuf::Message& UnaryGenerateCall::Reply(const Summary& summary) {
  *response_.mutable_usage() = ToUsage(summary);
  *response_.mutable_timing() = ToTiming(summary);
  return response_;
}

}  // namespace penstock
