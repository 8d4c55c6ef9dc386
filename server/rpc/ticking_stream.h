// A server stream whose messages come with time.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <memory>
#include <mutex>
#include <optional>

#include "server/rpc/call_context.h"

namespace penstock {

// Asks for the next message, writes it, waits, and asks again, until there is an end or the caller
// is gone. One message is under way at a time: a slow reader misses ticks, and holds up nobody.
// Owns itself until OnDone.
class TickingStream : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                      public std::enable_shared_from_this<TickingStream> {
 public:
  TickingStream(const CallContext& context, grpc::CallbackServerContext* call);

  // Ends at once with `admitted` unless it is OK. `stream` must have just been made.
  static grpc::ServerWriteReactor<grpc::ByteBuffer>* Start(
      const std::shared_ptr<TickingStream>& stream, const absl::Status& admitted);

  void OnWriteDone(bool ok) final;
  void OnCancel() final;
  void OnDone() final;

 protected:
  struct Turn {
    std::optional<grpc::ByteBuffer> message;
    std::optional<absl::Status> end;  // after the message
    absl::Duration pause;             // before the next turn
  };
  // Never two at a time.
  virtual Turn Next() = 0;
  // The stream is over, whoever ended it.
  virtual void OnEnded() {}

  const CallContext& context() const { return context_; }

 private:
  void Tick();
  void TickAfterPause();
  // Claims the right to finish the call; false: it is taken.
  bool ClaimEnd();
  void FinishWith(const absl::Status& status);

  const CallContext& context_;
  grpc::CallbackServerContext* const call_;  // valid until OnDone
  std::shared_ptr<TickingStream> self_;      // until OnDone

  std::mutex mutex_;
  Turn turn_;           // the last
  bool busy_ = false;   // a tick or its write runs: it will see `gone_`
  bool gone_ = false;   // the caller
  bool ended_ = false;  // Finish was, or is about to be, called
};

}  // namespace penstock
