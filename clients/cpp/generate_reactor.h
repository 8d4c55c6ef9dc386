// GenerateStream over gRPC's callback API: hundreds of streams share a few threads.
#pragma once

#include <grpcpp/client_context.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>

#include "clients/cpp/generate_call.h"
#include "penstock/v1/inference.grpc.pb.h"

namespace penstock::client {

// Counts the calls of a client. A gRPC channel must not be released for the last time on one of
// gRPC's own threads: it joins them. So a client outlives its calls' hold on the channel, by
// waiting here.
class OpenCalls {
 public:
  void Enter();
  void Leave();
  void WaitForNone();

 private:
  std::mutex mutex_;
  std::condition_variable none_;
  int count_ = 0;  // guarded by mutex_
};

class GenerateReactor final : public GenerateCall,
                              public grpc::ClientReadReactor<v1::GenerateStreamResponse>,
                              public std::enable_shared_from_this<GenerateReactor> {
 public:
  GenerateReactor(v1::GenerateRequest request, GenerateCallbacks callbacks,
                  std::shared_ptr<OpenCalls> open_calls);

  // To be filled in before Start.
  grpc::ClientContext& context() { return *context_; }
  // Once. From here to OnDone the call holds itself.
  void Start(v1::InferenceService::Stub& stub);

  void Cancel() override;
  absl::Status Wait() override;

  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  const v1::GenerateRequest request_;
  const GenerateCallbacks callbacks_;
  const std::shared_ptr<OpenCalls> open_calls_;
  v1::GenerateStreamResponse message_;
  std::shared_ptr<GenerateReactor> self_;

  std::mutex mutex_;
  std::condition_variable ended_;
  // Holds the channel; released when the call has ended. From Start on guarded by mutex_.
  std::optional<grpc::ClientContext> context_;
  std::optional<absl::Status> result_;  // guarded by mutex_
};

}  // namespace penstock::client
