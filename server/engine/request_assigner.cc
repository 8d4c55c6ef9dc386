#include "server/engine/request_assigner.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"

namespace penstock {

RequestAssigner::RequestAssigner(RouterSet* routers, Policy policy)
    : routers_(routers), policy_(std::make_shared<const Policy>(std::move(policy))) {}

void RequestAssigner::SetPolicy(Policy policy) {
  auto updated = std::make_shared<const Policy>(std::move(policy));
  std::lock_guard<std::mutex> lock(mutex_);
  policy_ = std::move(updated);
}

std::shared_ptr<const Policy> RequestAssigner::policy() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return policy_;
}

// A router that was loaded meanwhile may have changed the revision: the choice is then made anew,
// so that a reply never names a revision that its router is not of.
absl::StatusOr<RequestAssigner::Assignment> RequestAssigner::Assign(
    const std::shared_ptr<const Policy>& policy, const TenantPolicy& tenant,
    const AssignmentQuery& query) {
  while (true) {
    const std::uint64_t generation = routers_->generation();
    Assignment assignment;
    PENSTOCK_ASSIGN_OR_RETURN(assignment.choice,
                              AssignerOf(policy, generation)->Assign(query, tenant.routing));
    PENSTOCK_ASSIGN_OR_RETURN(assignment.router, routers_->Find(assignment.choice.router));
    if (routers_->generation() == generation) return assignment;
  }
}

absl::StatusOr<RequestAssigner::Explanation> RequestAssigner::Explain(
    const AssignmentQuery& query) {
  const std::shared_ptr<const Policy> running = policy();
  PENSTOCK_ASSIGN_OR_RETURN(const TenantPolicy* const tenant,
                            FindTenant(*running, std::string(query.tenant)));
  const std::shared_ptr<const Assigner> assigner = AssignerOf(running, routers_->generation());
  Explanation explanation;
  explanation.choice = assigner->Choose(query, tenant->routing);
  explanation.lines = assigner->Explain(query, tenant->routing);
  explanation.refusal = assigner->Assign(query, tenant->routing).status();
  if (explanation.refusal.ok()) {
    explanation.refusal = routers_->Find(explanation.choice.router).status();
    if (!explanation.refusal.ok()) {
      explanation.lines.push_back("refused: " + std::string(explanation.refusal.message()));
    }
  }
  return explanation;
}

std::map<std::string, std::string> RequestAssigner::Revisions() {
  return AssignerOf(policy(), routers_->generation())->revisions();
}

std::shared_ptr<const Assigner> RequestAssigner::AssignerOf(
    const std::shared_ptr<const Policy>& policy, std::uint64_t generation) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (assigner_ != nullptr && assigner_policy_ == policy && assigner_generation_ == generation) {
      return assigner_;
    }
  }
  Assigner::Options options;
  options.default_router = policy->default_router;
  options.traffic_salt = policy->traffic_salt;
  options.experiments = policy->experiments;
  for (const auto& router : routers_->List()) {
    options.fingerprints[router->name] = router->fingerprint;
  }
  auto assigner = std::make_shared<const Assigner>(std::move(options));
  std::lock_guard<std::mutex> lock(mutex_);
  assigner_ = assigner;
  assigner_policy_ = policy;
  assigner_generation_ = generation;
  return assigner;
}

absl::StatusOr<const TenantPolicy*> FindTenant(const Policy& policy, const std::string& name) {
  const auto found = policy.tenants.find(name);
  if (found != policy.tenants.end()) return &found->second;
  return InvalidField("x-penstock-tenant", absl::StrCat("\"", name, "\""), "a configured tenant");
}

}  // namespace penstock
