#include "server/rpc/ticking_stream.h"

#include <utility>

#include "server/rpc/caller.h"
#include "server/rpc/grpc_status.h"

namespace penstock {

TickingStream::TickingStream(const CallContext& context, grpc::CallbackServerContext* call)
    : context_(context), call_(call) {}

grpc::ServerWriteReactor<grpc::ByteBuffer>* TickingStream::Start(
    std::shared_ptr<TickingStream> stream, const absl::Status& admitted) {
  EchoTraceContext(stream->call_);
  stream->self_ = stream;
  if (admitted.ok()) {
    stream->Tick();
  } else if (stream->ClaimEnd()) {
    stream->FinishWith(admitted);
  }
  return stream.get();
}

void TickingStream::Tick() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (ended_) return;
    busy_ = true;
  }
  const absl::Status status = Guarded([this] {
    turn_ = Next();
    return absl::OkStatus();
  });
  if (!status.ok()) turn_ = {.message = std::nullopt, .end = status, .pause = {}};
  if (turn_.end) {
    if (!ClaimEnd()) return;
    if (!turn_.message) return FinishWith(*turn_.end);
    AddRetryAfter(*turn_.end, call_);
    return StartWriteAndFinish(&*turn_.message, grpc::WriteOptions(), ToGrpcStatus(*turn_.end));
  }
  if (turn_.message) return StartWrite(&*turn_.message);
  TickAfterPause();
}

void TickingStream::OnWriteDone(bool ok) {
  if (ok) return TickAfterPause();
  if (ClaimEnd()) FinishWith(GoneBeforeStart());
}

void TickingStream::TickAfterPause() {
  const absl::Duration pause = turn_.pause;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    busy_ = false;
    if (gone_ && !ended_) {
      ended_ = true;
    } else {
      context_.workers->RunAfter(pause, [weak = weak_from_this()] {
        if (const std::shared_ptr<TickingStream> stream = weak.lock()) stream->Tick();
      });
      return;
    }
  }
  FinishWith(GoneBeforeStart());
}

void TickingStream::OnCancel() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    gone_ = true;
    if (busy_ || ended_) return;
    ended_ = true;
  }
  FinishWith(GoneBeforeStart());
}

void TickingStream::OnDone() {
  const std::shared_ptr<TickingStream> self = std::move(self_);
  OnEnded();
}

bool TickingStream::ClaimEnd() {
  std::lock_guard<std::mutex> lock(mutex_);
  return !std::exchange(ended_, true);
}

void TickingStream::FinishWith(const absl::Status& status) {
  AddRetryAfter(status, call_);
  Finish(ToGrpcStatus(status));
}

}  // namespace penstock
