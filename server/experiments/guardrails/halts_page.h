// The arms that this replica's own guardrails and operators halted, for the others to read.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/experiments/guardrails/arm_halt.h"

namespace penstock {

struct NamedHalt {
  std::string experiment, arm;
  ArmHalt halt;
};

// JSON: {"halts": [{experiment, arm, source, reason, time_ns, metric, value, bound}]}.
std::string WriteHaltsPage(const std::vector<NamedHalt>& halts);

// INVALID_ARGUMENT: `page` is no such page, or has more than 1,000 halts, or a text over 4 KiB.
// Never throws, whatever `page` is.
absl::StatusOr<std::vector<NamedHalt>> ReadHaltsPage(const std::string& page);

}  // namespace penstock
