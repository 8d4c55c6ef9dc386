#include "clients/cpp/generate_reactor.h"

#include <utility>

#include "clients/cpp/error.h"

namespace penstock::client {

void OpenCalls::Enter() {
  const std::lock_guard lock(mutex_);
  ++count_;
}

void OpenCalls::Leave() {
  const std::lock_guard lock(mutex_);
  if (--count_ == 0) none_.notify_all();
}

void OpenCalls::WaitForNone() {
  std::unique_lock lock(mutex_);
  none_.wait(lock, [this] { return count_ == 0; });
}

GenerateReactor::GenerateReactor(v1::GenerateRequest request, GenerateCallbacks callbacks,
                                 std::shared_ptr<OpenCalls> open_calls)
    : request_(std::move(request)),
      callbacks_(std::move(callbacks)),
      open_calls_(std::move(open_calls)),
      context_(std::in_place) {}

void GenerateReactor::Start(v1::InferenceService::Stub& stub) {
  self_ = shared_from_this();
  open_calls_->Enter();
  stub.async()->GenerateStream(&*context_, &request_, this);
  StartRead(&message_);
  StartCall();
}

void GenerateReactor::Cancel() {
  const std::lock_guard lock(mutex_);
  if (context_) context_->TryCancel();
}

absl::Status GenerateReactor::Wait() {
  std::unique_lock lock(mutex_);
  ended_.wait(lock, [this] { return result_.has_value(); });
  return *result_;
}

void GenerateReactor::OnReadDone(bool ok) {
  if (!ok) return;  // the end of the stream: OnDone follows
  if (callbacks_.on_message) callbacks_.on_message(message_);
  StartRead(&message_);
}

void GenerateReactor::OnDone(const grpc::Status& status) {
  const absl::Status result = ToAbslStatus(status);
  if (callbacks_.on_done) callbacks_.on_done(result);
  // Destroyed when this returns, unless a handle is still held.
  const std::shared_ptr<GenerateReactor> self = std::move(self_);
  {
    const std::lock_guard lock(mutex_);
    context_.reset();
    result_ = result;
    ended_.notify_all();
  }
  open_calls_->Leave();
}

}  // namespace penstock::client
