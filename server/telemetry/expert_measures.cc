#include "server/telemetry/expert_measures.h"

#include <algorithm>
#include <cmath>

#include "server/base/check.h"

namespace penstock {

ExpertMeasures ComputeExpertMeasures(const RoutingSums& sums, int top_k) {
  PENSTOCK_CHECK_GT(sums.rows, 0);
  PENSTOCK_CHECK_GT(top_k, 0);
  PENSTOCK_CHECK_GT(sums.slots.size(), 0u);
  const auto num_experts = static_cast<std::int64_t>(sums.slots.size());
  const double rows = static_cast<double>(sums.rows);
  const double routed = rows * top_k;
  const double mean_load = 1.0 / static_cast<double>(num_experts);

  ExpertMeasures measures;
  double load_entropy = 0, variance = 0, max_load = 0;
  std::int64_t used = 0;
  for (const std::int64_t count : sums.slots) {
    const double load = static_cast<double>(count) / routed;
    if (count > 0) load_entropy -= load * std::log(load);
    variance += (load - mean_load) * (load - mean_load) / static_cast<double>(num_experts);
    max_load = std::max(max_load, load);
    used += 10 * num_experts * count >= sums.rows * top_k;
    measures.idle += count == 0;
  }
  const double max_entropy = std::log(static_cast<double>(num_experts));
  measures.entropy_ratio = num_experts == 1 ? 1 : sums.entropy / rows / max_entropy;
  measures.load_entropy_ratio = num_experts == 1 ? 1 : load_entropy / max_entropy;
  measures.imbalance_ratio = static_cast<double>(num_experts) * max_load;
  measures.load_cv = std::sqrt(variance) / mean_load;
  measures.utilization_ratio = static_cast<double>(used) * mean_load;
  measures.topk_mass_ratio = sums.topk_mass / rows;
  return measures;
}

}  // namespace penstock
