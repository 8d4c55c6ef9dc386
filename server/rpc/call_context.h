// What every call of the services works with.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/engine/frontend.h"
#include "server/model/model.h"
#include "server/rpc/call_tracker.h"
#include "server/rpc/reply_convert.h"
#include "server/rpc/task_runner.h"
#include "server/telemetry/telemetry.h"

namespace penstock {

// All members outlive every call.
struct CallContext {
  Frontend* frontend = nullptr;
  Telemetry* telemetry = nullptr;
  const Clock* clock = nullptr;
  const ModelSpec* model = nullptr;
  TaskRunner* workers = nullptr;
  CallTracker* tracker = nullptr;
  // Requests of more bytes than this are parsed and tokenized on `workers`: gRPC has as few as two
  // threads, on which all streams are written.
  std::size_t inline_bytes = 16 << 10;
  // How long a stream that was cut may take to read what waits for it, before the connection's
  // memory is freed.
  absl::Duration cut_grace = absl::Seconds(10);
};

// Runs `work` here, or on the workers when `request` is long.
void RunSized(const CallContext& context, const grpc::ByteBuffer& request,
              std::function<void()> work);

// Replies of the served model. `token_ids`, `scores`: ReplyShape's.
ReplyShape MakeReplyShape(const CallContext& context, bool token_ids, bool scores);

// INTERNAL, and a log line: an exception came up to a handler.
absl::Status ExceptionStatus(std::string_view what);

// `work`'s status; that of an exception where it throws one.
template <typename Work>
absl::Status Guarded(const Work& work) {
  try {
    return work();
  } catch (const std::exception& error) {
    return ExceptionStatus(error.what());
  } catch (...) {
    return ExceptionStatus("not a std::exception");
  }
}

// CANCELLED: the caller went away before the request was taken.
absl::Status GoneBeforeStart();

// Counts a request that never reached the frontend, which counts all others.
void CountUnstarted(const CallContext& context, const grpc::CallbackServerContext& call,
                    const absl::Status& status, absl::Duration arrival);

}  // namespace penstock
