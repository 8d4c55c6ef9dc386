// Errors that tell a client what to do. They travel as absl::Status; what a status message cannot
// carry (a stable reason, the offending field, when to come back) travels as payloads, and
// server/rpc and server/http turn them into google.rpc.ErrorInfo, BadRequest and RetryInfo, or into
// HTTP bodies and headers.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace penstock {

// What to tell a client beyond code and message.
struct ErrorDetail {
  std::string reason;                         // UPPER_SNAKE, stable: part of the interface
  std::string field;                          // path in the request ("sampling.top_p"); empty: none
  std::optional<absl::Duration> retry_after;  // set where a retry makes sense
};

// A status with `detail` attached. `code` must not be kOk.
absl::Status MakeError(absl::StatusCode code, std::string_view message, const ErrorDetail& detail);

// INVALID_ARGUMENT, reason INVALID_FIELD: "<field>: got <got>, want <want>".
absl::Status InvalidField(std::string_view field, std::string_view got, std::string_view want);

// The detail of a status made here; nullopt for any other status.
std::optional<ErrorDetail> GetErrorDetail(const absl::Status& status);

}  // namespace penstock
