#include "server/experiments/statistics/unit_sample.h"

#include <algorithm>
#include <map>

namespace penstock {

void UnitSample::Add(std::uint64_t hash) {
  constexpr int kDropped = 64 - 53;
  hash >>= kDropped;
  if (smallest_.size() == kSize && hash >= smallest_.back()) return;
  const auto place = std::lower_bound(smallest_.begin(), smallest_.end(), hash);
  if (place != smallest_.end() && *place == hash) return;
  smallest_.insert(place, hash);
  if (smallest_.size() > kSize) smallest_.pop_back();
}

SharedUnits CompareSamples(std::span<const std::vector<std::uint64_t>> replicas) {
  std::map<std::uint64_t, int> seen;  // by how many
  for (const std::vector<std::uint64_t>& replica : replicas) {
    for (const std::uint64_t hash : replica) ++seen[hash];
  }
  SharedUnits shared;
  double sum = 0;
  for (const auto& [hash, count] : seen) {
    if (shared.sampled == static_cast<int>(UnitSample::kSize)) break;
    ++shared.sampled;
    shared.split += count > 1 ? 1 : 0;
    sum += count;
  }
  if (shared.sampled > 0) shared.replicas = sum / shared.sampled;
  return shared;
}

}  // namespace penstock
