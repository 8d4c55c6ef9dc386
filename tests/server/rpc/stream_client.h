// A GenerateStream call as a client sees it.
#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "penstock/v1/inference.grpc.pb.h"

namespace penstock {

// Reads as fast as it can, or, with Reading::kNone, not before Read(). Must be waited for.
class StreamClient final : public grpc::ClientReadReactor<v1::GenerateStreamResponse> {
 public:
  enum class Reading { kEager, kNone };

  StreamClient(v1::InferenceService::Stub* stub, v1::GenerateRequest request,
               Reading reading = Reading::kEager,
               const std::vector<std::pair<std::string, std::string>>& metadata = {})
      : request_(std::move(request)) {
    for (const auto& [key, value] : metadata) context_.AddMetadata(key, value);
    stub->async()->GenerateStream(&context_, &request_, this);
    if (reading == Reading::kEager) {
      StartRead(&incoming_);
    } else {
      AddHold();
    }
    StartCall();
  }

  // Of a client that did not read.
  void Read() {
    StartRead(&incoming_);
    RemoveHold();
  }
  void Cancel() { context_.TryCancel(); }

  void WaitForMessages(std::size_t count) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return messages_.size() >= count || status_; });
  }
  grpc::Status Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return status_.has_value(); });
    return *status_;
  }
  std::vector<v1::GenerateStreamResponse> messages() {
    std::lock_guard<std::mutex> lock(mutex_);
    return messages_;
  }
  // Waits until the first choice has so many bytes, or the stream has ended.
  void WaitForText(std::size_t bytes) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return TextLocked(0).size() >= bytes || status_; });
  }
  std::string Text(int index = 0) {
    std::lock_guard<std::mutex> lock(mutex_);
    return TextLocked(index);
  }
  // Once a message has come.
  std::string InitialMetadata(const std::string& key) {
    const auto& metadata = context_.GetServerInitialMetadata();
    const auto found = metadata.find(key);
    return found == metadata.end() ? "" : std::string(found->second.data(), found->second.size());
  }
  // Once it has ended.
  std::string TrailingMetadata(const std::string& key) {
    const auto& metadata = context_.GetServerTrailingMetadata();
    const auto found = metadata.find(key);
    return found == metadata.end() ? "" : std::string(found->second.data(), found->second.size());
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      messages_.push_back(incoming_);
      changed_.notify_all();
    }
    StartRead(&incoming_);
  }
  void OnDone(const grpc::Status& status) override {
    std::lock_guard<std::mutex> lock(mutex_);
    status_ = status;
    changed_.notify_all();
  }

 private:
  std::string TextLocked(int index) const {
    std::string text;
    for (const v1::GenerateStreamResponse& message : messages_) {
      for (const v1::Choice& choice : message.deltas()) {
        if (choice.index() == index) text += choice.text();
      }
    }
    return text;
  }

  grpc::ClientContext context_;
  const v1::GenerateRequest request_;
  v1::GenerateStreamResponse incoming_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<v1::GenerateStreamResponse> messages_;
  std::optional<grpc::Status> status_;
};

}  // namespace penstock
