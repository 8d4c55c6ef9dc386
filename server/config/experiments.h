// Checks of the section `experiments`: within each experiment, against tenants and routers, and
// between experiments, so that none can take another's units.
#pragma once

#include <span>
#include <string>

#include "penstock/v1/config.pb.h"
#include "server/config/violations.h"

namespace penstock {

void CheckExperiments(const v1::ServerConfig& config, std::span<const std::string> built_in_routers,
                      Violations* violations);

}  // namespace penstock
