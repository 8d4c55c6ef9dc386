// Which router a request gets (experiments.md): its own choice, the tenant's pin, or the default.
#pragma once

#include <optional>
#include <set>
#include <string>

#include "absl/status/statusor.h"

namespace penstock {

// What a tenant may use.
struct TenantRouting {
  std::optional<std::set<std::string>> allowed;  // unset: every loaded router
  std::string pin;                               // empty: none
};

struct RouterChoice {
  std::string router;
  std::string reason;  // "explicit", "pinned" or "default"
};

// Pure. PERMISSION_DENIED (reason ROUTER_NOT_ALLOWED) where the tenant may not use the router that
// it would get.
absl::StatusOr<RouterChoice> AssignRouter(const std::string& requested, const std::string& tenant,
                                          const TenantRouting& routing,
                                          const std::string& default_router);

}  // namespace penstock
