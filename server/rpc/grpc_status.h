// The one place that turns absl::Status into what a gRPC client gets.
#pragma once

#include <grpcpp/support/status.h>

#include <cstdint>
#include <optional>

#include "absl/status/status.h"

namespace grpc {
class ServerContextBase;
}

namespace penstock {

// ErrorInfo.domain of every error.
inline constexpr char kErrorDomain[] = "penstock";

// Bytes of a message that reach the client; the rest is cut off (at a character's start, with "…").
// Trailing metadata hold the message twice, and clients refuse more than 8 KiB of them.
inline constexpr int kMaxErrorMessageBytes = 1024;

// Code and message of `status`, and `grpc-status-details-bin`: google.rpc.Status with ErrorInfo
// {reason, "penstock"} (the code's name where the status has no reason), BadRequest where it names
// a field, RetryInfo where it says when to come back.
grpc::Status ToGrpcStatus(const absl::Status& status);

// Whole seconds to wait before a retry, rounded up, at least 1; nullopt where a retry makes no
// sense.
std::optional<std::int64_t> RetryAfterSeconds(const absl::Status& status);

// Trailing metadata `retry-after`, where RetryAfterSeconds has a value. To be called before Finish.
void AddRetryAfter(const absl::Status& status, grpc::ServerContextBase* context);

}  // namespace penstock
