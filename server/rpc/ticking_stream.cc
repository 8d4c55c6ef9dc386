#include "server/rpc/ticking_stream.h"

#include <utility>

#include "server/rpc/caller.h"
#include "server/rpc/grpc_status.h"

namespace penstock {

TickingStream::TickingStream(const CallContext& context, grpc::CallbackServerContext* call)
    : context_(context), call_(call) {}

grpc::ServerWriteReactor<grpc::ByteBuffer>* TickingStream::Start(
    const std::shared_ptr<TickingStream>& stream, const absl::Status& admitted) {
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
  Turn turn;
  const absl::Status status = Guarded([&] {
    turn = Next();
    return absl::OkStatus();
  });
  if (!status.ok()) turn = {.message = std::nullopt, .end = status, .pause = {}};
  const bool has_message = turn.message.has_value();
  const std::optional<absl::Status> end = turn.end;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    turn_ = std::move(turn);
    if (end && std::exchange(ended_, true)) return;
    if (end && has_message) AddRetryAfter(*end, call_);
  }
  if (end && has_message) {
    StartWriteAndFinish(&*turn_.message, grpc::WriteOptions(), ToGrpcStatus(*end));
  } else if (end) {
    FinishWith(*end);
  } else if (has_message) {
    StartWrite(&*turn_.message);
  } else {
    TickAfterPause();
  }
}

void TickingStream::OnWriteDone(bool ok) {
  if (ok) return TickAfterPause();
  if (ClaimEnd()) FinishWith(GoneBeforeStart());
}

void TickingStream::TickAfterPause() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    busy_ = false;
    if (gone_ && !ended_) {
      ended_ = true;
    } else {
      context_.workers->RunAfter(turn_.pause, [weak = weak_from_this()] {
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
