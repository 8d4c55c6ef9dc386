// A page over plain HTTP.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace penstock::client {

// The body of http://ADDRESS/PATH. `address` is host:port. UNAVAILABLE where nothing answers,
// DEADLINE_EXCEEDED after `timeout` in all, UNKNOWN for a status other than 200, INVALID_ARGUMENT
// for an address without a port. Messages name the URL.
absl::StatusOr<std::string> HttpGet(const std::string& address, const std::string& path,
                                    absl::Duration timeout);

}  // namespace penstock::client
