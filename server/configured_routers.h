// routers.load of the configuration, and the routers that are loaded.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "penstock/v1/config.pb.h"
#include "server/engine/policy.h"
#include "server/engine/router_set.h"

namespace penstock {

// At the start. Errors name the entry.
absl::Status LoadConfigured(const v1::ServerConfig& config, RouterSet* routers);

// What `updated` has new, and what `running` had and an operator has unloaded since. Every package
// is tried by `loader`, and places are counted, before the first is taken, so that a bad one
// changes nothing. RESOURCE_EXHAUSTED: there are not enough places.
absl::Status LoadAdded(const v1::ServerConfig& running, const v1::ServerConfig& updated,
                       const RouterLoader& loader, RouterSet* routers);

// What `running` had and `updated` has no more; routers that came by LoadRouter stay. What cannot
// be unloaded is logged.
void UnloadRemoved(const v1::ServerConfig& running, const v1::ServerConfig& updated,
                   RouterSet* routers);

// Why a router may not be unloaded; empty: it may.
std::string UserOfRouter(const Policy& policy, const std::string& router);

}  // namespace penstock
