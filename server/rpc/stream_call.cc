#include "server/rpc/stream_call.h"

#include <algorithm>
#include <utility>

#include "penstock/v1/inference.pb.h"
#include "server/base/status_macros.h"
#include "server/rpc/caller.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/request_convert.h"
#include "server/rpc/wire_message.h"

namespace penstock {

grpc::ServerWriteReactor<grpc::ByteBuffer>* StreamCall::Start(
    const std::shared_ptr<StreamCall>& stream, const grpc::ByteBuffer& request) {
  EchoTraceContext(stream->call_);
  stream->self_ = stream;
  RunSized(stream->context_, request, [stream, request] { stream->Admit(request); });
  return stream.get();
}

StreamCall::StreamCall(const CallContext& context, grpc::CallbackServerContext* call)
    : context_(context),
      call_(call),
      arrival_(context.clock->Monotonic()),
      link_(context.frontend),
      tracked_(context.tracker->Begin()) {}

void StreamCall::Admit(const grpc::ByteBuffer& request) {
  bool reached = false;
  const absl::Status status = Guarded([&] { return StartRequest(request, &reached); });
  if (status.ok()) return;
  if (!reached) CountUnstarted(context_, *call_, status, arrival_);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    end_ = status;
  }
  Advance();
}

absl::Status StreamCall::StartRequest(const grpc::ByteBuffer& request, bool* reached) {
  v1::GenerateRequest message;
  PENSTOCK_RETURN_IF_ERROR(ParseMessage(request, &message));
  const bool token_ids = message.response().token_ids();
  PENSTOCK_ASSIGN_OR_RETURN(Caller caller, ReadCaller(*call_, *context_.clock));
  PENSTOCK_ASSIGN_OR_RETURN(GenerateCall generate,
                            ToGenerateCall(std::move(message), std::move(caller)));
  if (link_.cancelled()) return GoneBeforeStart();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    queue_.emplace(MakeReplyShape(context_, token_ids, generate.logprobs.has_value()),
                   static_cast<int>(generate.sampling.n.value_or(1)),
                   context_.frontend->policy()->limits.max_response_queue);
  }
  *reached = true;
  PENSTOCK_ASSIGN_OR_RETURN(const std::uint64_t number,
                            context_.frontend->Generate(std::move(generate), shared_from_this()));
  link_.Started(number);
  return absl::OkStatus();
}

void StreamCall::OnAdmitted(const Admission& admission) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!gone_) queue_->PushAdmission(admission);
  }
  Advance();
}

bool StreamCall::OnDelta(Delta delta) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    // Its cancellation is on the way.
    if (gone_) return true;
    if (!queue_->PushDelta(std::move(delta))) return false;
  }
  Advance();
  return true;
}

void StreamCall::OnFinished(const absl::Status& status, const Summary& summary) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!gone_) queue_->PushEnd(status, summary);
    end_ = status;
  }
  if (!status.ok()) LimitReading();
  Advance();
}

void StreamCall::OnWriteDone(bool ok) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    writing_ = false;
    if (!ok) {
      gone_ = true;
      queue_->Clear();
    }
  }
  if (!ok) link_.Cancel();
  Advance();
}

void StreamCall::OnCancel() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    gone_ = true;
    if (queue_) queue_->Clear();
  }
  link_.Cancel();
}

void StreamCall::OnDone() {
  std::shared_ptr<StreamCall> self;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    done_ = true;
    self = std::move(self_);
  }
  tracked_.reset();
}

void StreamCall::Advance() {
  std::optional<v1::GenerateStreamResponse> message;
  std::optional<absl::Status> last;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (writing_) return;
    if (queue_) message = queue_->Pop();
    if (end_ && (!queue_ || queue_->empty())) last = end_;
    if (!message && !last) return;
    writing_ = true;
    if (last) AddRetryAfter(*last, call_);
  }
  if (message) SerializeMessage(*message, &outgoing_);
  if (!last) return StartWrite(&outgoing_);
  if (message) {
    StartWriteAndFinish(&outgoing_, grpc::WriteOptions(), ToGrpcStatus(*last));
  } else {
    Finish(ToGrpcStatus(*last));
  }
}

void StreamCall::LimitReading() {
  context_.workers->RunAfter(context_.cut_grace, [weak = weak_from_this()] {
    const std::shared_ptr<StreamCall> call = weak.lock();
    if (!call) return;
    std::lock_guard<std::mutex> lock(call->mutex_);
    if (!call->done_) call->call_->TryCancel();
  });
}

}  // namespace penstock
