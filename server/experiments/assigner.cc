#include "server/experiments/assigner.h"

#include "server/base/error.h"

namespace penstock {

absl::StatusOr<RouterChoice> AssignRouter(const std::string& requested, const std::string& tenant,
                                          const TenantRouting& routing,
                                          const std::string& default_router) {
  RouterChoice choice = !requested.empty()     ? RouterChoice{requested, "explicit"}
                        : !routing.pin.empty() ? RouterChoice{routing.pin, "pinned"}
                                               : RouterChoice{default_router, "default"};
  if (routing.allowed && !routing.allowed->contains(choice.router)) {
    std::string allowed;
    for (const std::string& name : *routing.allowed)
      allowed += (allowed.empty() ? "" : ", ") + name;
    return MakeError(absl::StatusCode::kPermissionDenied,
                     "router: got " + choice.router + " (" + choice.reason + "), but tenant " +
                         tenant + " may use only: " + allowed,
                     {.reason = "ROUTER_NOT_ALLOWED", .field = "router", .retry_after = {}});
  }
  return choice;
}

}  // namespace penstock
