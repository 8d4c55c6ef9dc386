// One streamed answer in flight.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "penstock/v1/inference.pb.h"

namespace penstock::client {

// Called on gRPC's threads, one at a time per call, in the order of the stream. They must not block
// for long (all calls of the process share these threads), and may start other calls, but not Wait
// for one.
struct GenerateCallbacks {
  std::function<void(const v1::GenerateStreamResponse&)> on_message;
  // Exactly once, last. Carries the server's error details (error.h).
  std::function<void(const absl::Status&)> on_done;
};

// A handle: dropping it leaves the call running to its end. Thread-safe.
class GenerateCall {
 public:
  virtual ~GenerateCall() = default;

  // Ends the call with CANCELLED unless it has ended already; the server frees its blocks within
  // one step.
  virtual void Cancel() = 0;

  // Blocks until on_done has returned, and gives its status.
  virtual absl::Status Wait() = 0;
};

// Adds a message of a stream to the answer that it is a part of: afterwards `response` equals what
// the unary Generate would have returned for the messages so far.
void MergeMessage(const v1::GenerateStreamResponse& message, v1::GenerateResponse& response);

}  // namespace penstock::client
