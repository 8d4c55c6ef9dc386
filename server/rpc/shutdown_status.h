// What requests are told that a shutdown cuts off.
#pragma once

#include "absl/status/status.h"
#include "server/base/error.h"

namespace penstock {

// UNAVAILABLE, reason SHUTTING_DOWN; another replica can take the request at once.
inline absl::Status CutByShutdown() {
  return MakeError(absl::StatusCode::kUnavailable,
                   "the server shuts down, and the request had not ended within the drain timeout",
                   {.reason = "SHUTTING_DOWN", .field = {}, .retry_after = absl::Seconds(1)});
}

}  // namespace penstock
