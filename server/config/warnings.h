// What is valid in a configuration, and yet hardly what its author wants.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "penstock/v1/config.pb.h"

namespace penstock {

// One line each, `path: what, and what comes of it`. `config` is a valid one,
// as LoadConfig returns it; what is over is so at `now`.
std::vector<std::string> ConfigWarnings(const v1::ServerConfig& config, absl::Time now);

}  // namespace penstock
