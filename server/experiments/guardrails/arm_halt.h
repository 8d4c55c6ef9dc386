// Why an arm's units get control's router.
#pragma once

#include <string>
#include <string_view>

#include "absl/time/time.h"

namespace penstock {

enum class HaltSource {
  kConfiguration,  // `halted: true` in the file: the file alone resumes it
  kOperator,
  kGuardrail,
  kDamagedState,  // what was halted is not known any more, so everything is
  kPeer,          // another replica's guardrail or operator
};

// "configuration", "operator", "guardrail", "damaged_state", "peer".
std::string_view Name(HaltSource source);

struct ArmHalt {
  HaltSource source = HaltSource::kOperator;
  std::string reason = {};  // in words
  absl::Time time = {};
  // Of a guardrail.
  std::string metric = {};
  double value = 0, bound = 0;
};

}  // namespace penstock
