#include "server/rpc/unary_call.h"

#include <utility>

#include "server/base/status_macros.h"
#include "server/rpc/caller.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/wire_message.h"

namespace penstock {

UnaryCall::UnaryCall(const CallContext& context, grpc::CallbackServerContext* call,
                     grpc::ByteBuffer* reply)
    : context_(context),
      call_(call),
      reply_(reply),
      arrival_(context.clock->Monotonic()),
      link_(context.frontend),
      tracked_(context.tracker->Begin()) {}

grpc::ServerUnaryReactor* UnaryCall::Start(const std::shared_ptr<UnaryCall>& call,
                                           const grpc::ByteBuffer& request) {
  EchoTraceContext(call->call_);
  call->self_ = call;
  RunSized(call->context_, request, [call, request] { call->Admit(request); });
  return call.get();
}

void UnaryCall::Admit(const grpc::ByteBuffer& request) {
  bool reached = false;
  const absl::Status status = Guarded([&] { return StartRequest(request, &reached); });
  if (status.ok()) return;
  if (!reached) CountUnstarted(context_, *call_, status, arrival_);
  FinishWith(status);
}

absl::Status UnaryCall::StartRequest(const grpc::ByteBuffer& request, bool* reached) {
  PENSTOCK_ASSIGN_OR_RETURN(Caller caller, ReadCaller(*call_, *context_.clock));
  PENSTOCK_RETURN_IF_ERROR(Convert(request, std::move(caller)));
  if (link_.cancelled()) return GoneBeforeStart();
  *reached = true;
  PENSTOCK_ASSIGN_OR_RETURN(const std::uint64_t number, Submit());
  link_.Started(number);
  return absl::OkStatus();
}

void UnaryCall::OnFinished(const absl::Status& status, const Summary& summary) {
  FinishWith(Guarded([&] {
    if (status.ok()) SerializeMessage(Reply(summary), reply_);
    return status;
  }));
}

void UnaryCall::FinishWith(const absl::Status& status) {
  AddRetryAfter(status, call_);
  Finish(ToGrpcStatus(status));
}

void UnaryCall::OnDone() {
  const std::shared_ptr<UnaryCall> self = std::move(self_);
  tracked_.reset();
}

}  // namespace penstock
