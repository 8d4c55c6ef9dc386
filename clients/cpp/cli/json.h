// Replies as JSON for scripts.
#pragma once

#include <google/protobuf/message.h>

#include <string>

#include "absl/status/status.h"

namespace penstock::client {

// One line without its end, by protobuf's JSON mapping with the field names of the .proto files;
// unset scalars are written as their zero values, so that a script finds every key (64-bit integers
// are strings there).
std::string ToJson(const google::protobuf::Message& message);

// {"error": {"code": "RESOURCE_EXHAUSTED", "message": …, "reason": …, "field": …,
// "retry_after_seconds": …}}, the last three only where known. `label` names what failed:
// {"router": label, "error": …}; empty: left out.
std::string ErrorToJson(const absl::Status& status, const std::string& label);

}  // namespace penstock::client
