#include "server/telemetry/expert_ledger.h"

#include <algorithm>
#include <utility>

#include "server/base/check.h"

namespace penstock {
namespace {

// Runs for every router, layer and step: the three arrays don't overlap, so that it can be
// vectorized.
void AddSlots(const std::int64_t* __restrict counts, std::size_t size,
              std::int64_t* __restrict total, std::uint32_t* __restrict window) {
  for (std::size_t e = 0; e < size; ++e) {
    total[e] += counts[e];
    window[e] += static_cast<std::uint32_t>(counts[e]);
  }
}

}  // namespace

ExpertLedger::ExpertLedger(std::vector<int> layers, int num_experts, int top_k)
    : layers_(std::move(layers)),
      num_experts_(static_cast<std::size_t>(num_experts)),
      top_k_(top_k),
      ledger_(layers_.size()) {
  for (Layer& layer : ledger_) {
    layer.slots.resize(num_experts_);
    layer.buckets.resize(kWindowSeconds);
    layer.window_slots.resize(kWindowSeconds * num_experts_);
  }
}

void ExpertLedger::Add(std::int64_t second, const RoutingCounts& counts) {
  const auto found = std::lower_bound(layers_.begin(), layers_.end(), counts.layer);
  PENSTOCK_CHECK(found != layers_.end() && *found == counts.layer)
      << "layer " << counts.layer << " routes nothing";
  PENSTOCK_CHECK_EQ(counts.slots.size(), num_experts_);
  Layer& layer = ledger_[static_cast<std::size_t>(found - layers_.begin())];

  const std::size_t index = static_cast<std::size_t>(second % kWindowSeconds);
  Bucket& bucket = layer.buckets[index];
  std::uint32_t* window_slots = layer.window_slots.data() + index * num_experts_;
  if (bucket.second != second) {
    bucket = {.second = second};
    std::fill_n(window_slots, num_experts_, 0);
  }
  layer.rows += counts.rows;
  layer.entropy += counts.entropy;
  bucket.rows += counts.rows;
  bucket.entropy += counts.entropy;
  bucket.topk_mass += counts.topk_mass;
  AddSlots(counts.slots.data(), num_experts_, layer.slots.data(), window_slots);
}

std::vector<LayerExpertStats> ExpertLedger::StatsAt(std::int64_t second) const {
  std::vector<LayerExpertStats> stats;
  stats.reserve(layers_.size());
  for (std::size_t i = 0; i < layers_.size(); ++i) stats.push_back(LayerStatsAt(second, i));
  return stats;
}

LayerExpertStats ExpertLedger::LayerStatsAt(std::int64_t second, std::size_t position) const {
  const Layer& layer = ledger_[position];
  LayerExpertStats stats{.layer = layers_[position],
                         .rows = layer.rows,
                         .slots = layer.slots,
                         .entropy = layer.entropy,
                         .window_rows = 0,
                         .window_slots = std::vector<std::int64_t>(num_experts_),
                         .window = {}};
  RoutingSums sums;
  for (std::size_t i = 0; i < layer.buckets.size(); ++i) {
    const Bucket& bucket = layer.buckets[i];
    if (bucket.rows == 0 || bucket.second <= second - kWindowSeconds) continue;
    sums.rows += bucket.rows;
    sums.entropy += bucket.entropy;
    sums.topk_mass += bucket.topk_mass;
    const std::uint32_t* slots = layer.window_slots.data() + i * num_experts_;
    for (std::size_t e = 0; e < num_experts_; ++e) stats.window_slots[e] += slots[e];
  }
  stats.window_rows = sums.rows;
  if (sums.rows > 0) {
    sums.slots = stats.window_slots;
    stats.window = ComputeExpertMeasures(sums, top_k_);
  }
  return stats;
}

}  // namespace penstock
