// From the running policy and the loaded routers to the router of one request.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/engine/policy.h"
#include "server/engine/router_set.h"
#include "server/experiments/assigner.h"

namespace penstock {

// Thread-safe.
class RequestAssigner {
 public:
  struct Assignment {
    RouterChoice choice;
    std::shared_ptr<const LoadedRouter> router;
  };
  struct Explanation {
    RouterChoice choice;             // whether or not the tenant may use its router
    std::vector<std::string> lines;  // Assigner::Explain's
    absl::Status refusal;            // what the request would be told; OK: it would be taken
  };

  // `routers` outlives it.
  RequestAssigner(RouterSet* routers, Policy policy);

  void SetPolicy(Policy policy);
  std::shared_ptr<const Policy> policy() const;

  // `tenant` is of `policy`. NOT_FOUND: the router is not loaded; PERMISSION_DENIED as
  // Assigner::Assign.
  absl::StatusOr<Assignment> Assign(const std::shared_ptr<const Policy>& policy,
                                    const TenantPolicy& tenant, const AssignmentQuery& query);

  // What Assign would do under the policy of now. INVALID_ARGUMENT: no such tenant.
  absl::StatusOr<Explanation> Explain(const AssignmentQuery& query);

  // By name of the experiment, with the packages that are loaded now.
  std::map<std::string, std::string> Revisions();

 private:
  std::shared_ptr<const Assigner> AssignerOf(const std::shared_ptr<const Policy>& policy,
                                             std::uint64_t generation);

  RouterSet* const routers_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Policy> policy_;
  // Made from this policy and the routers of this generation.
  std::shared_ptr<const Assigner> assigner_;
  std::shared_ptr<const Policy> assigner_policy_;
  std::uint64_t assigner_generation_ = 0;
};

// The tenant of `policy` that `name` means; its own refusal where there is none.
absl::StatusOr<const TenantPolicy*> FindTenant(const Policy& policy, const std::string& name);

}  // namespace penstock
