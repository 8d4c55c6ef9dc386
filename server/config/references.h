// Checks that concern more than one field.
#pragma once

#include <span>
#include <string>

#include "penstock/v1/config.pb.h"
#include "server/config/violations.h"

namespace penstock {

// Addresses that clash or are open without consent, names that stand twice, routers and tenants
// that refer to nothing. `built_in_routers`: those that exist without a package.
void CheckReferences(const v1::ServerConfig& config, std::span<const std::string> built_in_routers,
                     Violations* violations);

}  // namespace penstock
