// One Generate or Score call: a request of the frontend whose answer is sent as a whole.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <memory>

#include "absl/status/statusor.h"
#include "server/rpc/call_context.h"
#include "server/rpc/request_link.h"

namespace penstock {

// Owns itself until OnDone; the frontend shares it until OnFinished. What it collects needs no
// lock: the observer's calls come one after the other, and nothing else reads it.
class UnaryCall : public grpc::ServerUnaryReactor,
                  public ResponseObserver,
                  public std::enable_shared_from_this<UnaryCall> {
 public:
  UnaryCall(const CallContext& context, grpc::CallbackServerContext* call, grpc::ByteBuffer* reply);

  // Takes the request. `call` must have just been made.
  static grpc::ServerUnaryReactor* Start(const std::shared_ptr<UnaryCall>& call,
                                         const grpc::ByteBuffer& request);

  void OnFinished(const absl::Status& status, const Summary& summary) final;
  void OnCancel() final { link_.Cancel(); }
  void OnDone() final;

 protected:
  // Parses and converts. Called before Submit, and may be the end of it.
  virtual absl::Status Convert(const grpc::ByteBuffer& request, Caller caller) = 0;
  // Hands what Convert made to the frontend, with shared_from_this() as the observer.
  virtual absl::StatusOr<std::uint64_t> Submit() = 0;
  // The reply, complete but for `summary`.
  virtual const google::protobuf::Message& Reply(const Summary& summary) = 0;

  const CallContext& context() const { return context_; }

 private:
  void Admit(const grpc::ByteBuffer& request);
  absl::Status StartRequest(const grpc::ByteBuffer& request, bool* reached);
  // Nothing of *this may be touched afterwards without a reference of one's own.
  void FinishWith(const absl::Status& status);

  const CallContext& context_;
  grpc::CallbackServerContext* const call_;  // valid until OnDone
  grpc::ByteBuffer* const reply_;            // likewise
  const absl::Duration arrival_;
  RequestLink link_;
  CallTracker::Call tracked_;
  std::shared_ptr<UnaryCall> self_;  // until OnDone
};

}  // namespace penstock
