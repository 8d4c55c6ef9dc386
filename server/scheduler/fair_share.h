// Which tenant has been served least for its weight.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"

namespace penstock {

struct TenantShare {
  std::string name;
  double weight = 1;
  double served = 0;  // virtual counter: tokens charged, each over the weight of its time
  int live = 0;       // sequences, waiting or running; 0: the tenant is idle
};

// Virtual token counters of tenants (VTC: Sheng et al., arXiv 2401.00588): who has work and the
// lowest counter is next. A tenant that comes back from idleness is lifted to the lowest counter
// among those that have work, so that being idle earns no credit; one that is above it keeps its
// counter, so that leaving pays no debt. When nobody has work, all start again from zero.
class FairShare {
 public:
  // Weights are finite and above zero; tenants that are absent have 1.
  explicit FairShare(std::map<std::string, double> weights) : weights_(std::move(weights)) {}

  // Counts one more live sequence of a tenant. The result is valid until Leave was called as often
  // as Join.
  TenantShare* Join(const std::string& tenant);
  void Leave(TenantShare* tenant);

  void Charge(TenantShare* tenant, double tokens) { tenant->served += tokens / tenant->weight; }

  // For what is charged from now on.
  void SetWeights(std::map<std::string, double> weights);

  // Tenants remembered, idle ones included. At most kMaxIdle of them are idle.
  int size() const { return static_cast<int>(tenants_.size()); }

  static constexpr int kMaxIdle = 4096;

 private:
  double LowestLive() const;  // 0 when nobody is
  double WeightOf(const std::string& tenant) const;
  void ForgetIdle();

  std::map<std::string, double> weights_;
  absl::flat_hash_map<std::string, std::unique_ptr<TenantShare>> tenants_;
  int live_tenants_ = 0;
};

}  // namespace penstock
