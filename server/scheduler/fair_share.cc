#include "server/scheduler/fair_share.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "server/base/check.h"

namespace penstock {

TenantShare* FairShare::Join(const std::string& tenant) {
  std::unique_ptr<TenantShare>& share = tenants_[tenant];
  if (share == nullptr) {
    share = std::make_unique<TenantShare>();
    share->name = tenant;
    share->weight = WeightOf(tenant);
  }
  TenantShare* const joined = share.get();
  if (joined->live == 0) {
    joined->served = std::max(joined->served, LowestLive());
    ++live_tenants_;
  }
  ++joined->live;
  return joined;
}

void FairShare::Leave(TenantShare* tenant) {
  PENSTOCK_CHECK_GT(tenant->live, 0) << tenant->name;
  if (--tenant->live > 0) return;
  if (--live_tenants_ == 0) {
    tenants_.clear();
  } else if (size() - live_tenants_ > kMaxIdle) {
    ForgetIdle();
  }
}

void FairShare::SetWeights(std::map<std::string, double> weights) {
  weights_ = std::move(weights);
  for (auto& [name, share] : tenants_) share->weight = WeightOf(name);
}

double FairShare::LowestLive() const {
  double lowest = std::numeric_limits<double>::infinity();
  for (const auto& [name, share] : tenants_) {
    if (share->live > 0) lowest = std::min(lowest, share->served);
  }
  return live_tenants_ == 0 ? 0 : lowest;
}

double FairShare::WeightOf(const std::string& tenant) const {
  const auto weight = weights_.find(tenant);
  return weight == weights_.end() ? 1 : weight->second;
}

// Those at or below the lowest live counter would be lifted anyway: nothing is lost with them. If
// that is not half of them, the others go too: memory is bounded before debts are collected.
void FairShare::ForgetIdle() {
  const double lowest = LowestLive();
  absl::erase_if(tenants_, [lowest](const auto& tenant) {
    return tenant.second->live == 0 && tenant.second->served <= lowest;
  });
  if (size() - live_tenants_ <= kMaxIdle / 2) return;
  absl::erase_if(tenants_, [](const auto& tenant) { return tenant.second->live == 0; });
}

}  // namespace penstock
