// Calls a method with any bytes, as no generated stub would.
#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace penstock {

// The status of `method` ("/penstock.v1.InferenceService/Generate") for a request of `bytes`. Of a
// streaming method: its status where it sends no message.
inline grpc::Status CallWithBytes(
    const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
    const std::string& bytes,
    const std::vector<std::pair<std::string, std::string>>& metadata = {}) {
  grpc::ClientContext context;
  for (const auto& [key, value] : metadata) context.AddMetadata(key, value);
  const grpc::Slice slice(bytes);
  const grpc::ByteBuffer request(&slice, 1);
  grpc::ByteBuffer reply;
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<grpc::Status> result;
  grpc::GenericStub stub(channel);
  stub.UnaryCall(&context, method, {}, &request, &reply, [&](const grpc::Status& status) {
    std::lock_guard<std::mutex> lock(mutex);
    result = status;
    changed.notify_all();
  });
  std::unique_lock<std::mutex> lock(mutex);
  changed.wait(lock, [&] { return result.has_value(); });
  return *result;
}

}  // namespace penstock
