// One GenerateStream call.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <memory>
#include <mutex>
#include <optional>

#include "server/rpc/call_context.h"
#include "server/rpc/request_link.h"
#include "server/rpc/response_queue.h"

namespace penstock {

// Three kinds of threads meet here: gRPC's (OnWriteDone, OnCancel, OnDone), the frontend's response
// thread (the observer's calls) and the one that starts the request. `mutex_` guards what they
// share; no call into gRPC or the frontend is made under it but TryCancel. At any time at most one
// thread owns the right to start a write or to finish
// (`writing_`), so no two operations overlap and none follows the last one.
// The call owns itself until OnDone; the frontend shares it until OnFinished. Whichever comes last
// frees it.
class StreamCall final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                         public ResponseObserver,
                         public std::enable_shared_from_this<StreamCall> {
 public:
  // Takes the request. `stream` must have just been made.
  static grpc::ServerWriteReactor<grpc::ByteBuffer>* Start(
      const std::shared_ptr<StreamCall>& stream, const grpc::ByteBuffer& request);

  StreamCall(const CallContext& context, grpc::CallbackServerContext* call);

  void OnAdmitted(const Admission& admission) override;
  bool OnDelta(Delta delta) override;
  void OnFinished(const absl::Status& status, const Summary& summary) override;

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  void Admit(const grpc::ByteBuffer& request);
  // Parses and converts, and hands the request to the frontend. `reached`: the frontend has seen
  // it.
  absl::Status StartRequest(const grpc::ByteBuffer& request, bool* reached);
  // Starts the next operation, if there is one and none is running. Nothing of *this may be touched
  // afterwards without a reference of one's own.
  void Advance();
  // Ends the call if the reader does not take what waits for it in time.
  void LimitReading();

  const CallContext& context_;
  grpc::CallbackServerContext* const call_;  // valid until OnDone
  const absl::Duration arrival_;
  RequestLink link_;
  CallTracker::Call tracked_;
  std::shared_ptr<StreamCall> self_;  // until OnDone
  grpc::ByteBuffer outgoing_;         // of the write that runs; its owner's

  std::mutex mutex_;
  std::optional<ResponseQueue> queue_;  // set before the request is started
  std::optional<absl::Status> end_;     // nothing more will be queued
  bool gone_ = false;                   // nobody reads any more
  bool writing_ = false;                // an operation runs, or the last one was started
  bool done_ = false;
};

}  // namespace penstock
