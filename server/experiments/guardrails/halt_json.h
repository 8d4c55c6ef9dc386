// A halt as JSON: in the state file, and on the page that other replicas read.
#pragma once

#include <optional>

#include "nlohmann/json.hpp"
#include "server/experiments/guardrails/arm_halt.h"

namespace penstock {

// {source, reason, time_ns, metric, value, bound}.
nlohmann::ordered_json HaltToJson(const ArmHalt& halt);

// nullopt: a source that there is none of. Throws nlohmann's exceptions for what HaltToJson never
// makes.
std::optional<ArmHalt> HaltFromJson(const nlohmann::ordered_json& json);

}  // namespace penstock
