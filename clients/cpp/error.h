// Errors of a call, as the server explains them: google.rpc details out of
// `grpc-status-details-bin`.
#pragma once

#include <grpcpp/support/status.h>

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace penstock::client {

// What a server says beyond code and message.
struct ErrorDetail {
  std::string reason;                         // UPPER_SNAKE, stable; empty: none was sent
  std::string domain;                         // "penstock" for errors of the server itself
  std::string field;                          // first violated field, as a path: "sampling.top_p"
  std::string description;                    // what is wrong with that field
  std::optional<absl::Duration> retry_after;  // set where trying again makes sense
};

// Code and message of `status`; every google.rpc detail becomes a payload under its own type URL.
// Details that don't parse are left out: code and message stay right without them.
absl::Status ToAbslStatus(const grpc::Status& status);

// The detail of a status that came from a call; all empty where the server sent none.
ErrorDetail GetErrorDetail(const absl::Status& status);

// For people, without a line end: "MESSAGE", then "reason: …" and "retry after …" on lines of their
// own where known.
std::string DescribeError(const absl::Status& status);

}  // namespace penstock::client
