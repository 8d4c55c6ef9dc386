// What one router decided, by layer: in total, and over the last minute.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "server/telemetry/events.h"
#include "server/telemetry/expert_measures.h"

namespace penstock {

struct LayerExpertStats {
  int layer = 0;                           // index in model.layers
  std::int64_t rows = 0;                   // since the router was loaded
  std::vector<std::int64_t> slots;         // [E], since the router was loaded; sums to k · rows
  double entropy = 0;                      // Σ over these rows, nats (RoutingSums)
  std::int64_t window_rows = 0;            // in the last 60 s
  std::vector<std::int64_t> window_slots;  // [E], in the last 60 s
  std::optional<ExpertMeasures> window;    // over the last 60 s; absent without rows
};

struct RouterExpertStats {
  std::string router;
  std::int64_t rows = 0;            // since it was loaded, each counted once, not per layer
  absl::Duration router_time = {};  // spent in Route, since then
  std::vector<LayerExpertStats> layers = {};  // in the model's order
};

// Not thread-safe. The window is kept in buckets of one second, so it covers the last 59 to 60 s.
class ExpertLedger {
 public:
  static constexpr int kWindowSeconds = 60;

  // `layers`: ascending indices in model.layers.
  ExpertLedger(std::vector<int> layers, int num_experts, int top_k);

  // `second` never goes back. The layer must be one of `layers`, and the slots [E].
  void Add(std::int64_t second, const RoutingCounts& counts);

  std::vector<LayerExpertStats> StatsAt(std::int64_t second) const;

 private:
  struct Bucket {
    std::int64_t second = -1;  // what the sums are of; they are stale once it is out of the window
    std::int64_t rows = 0;
    double entropy = 0;
    double topk_mass = 0;
  };
  struct Layer {
    std::int64_t rows = 0;
    std::vector<std::int64_t> slots;  // [E]
    double entropy = 0;
    std::vector<Bucket> buckets;              // [kWindowSeconds], at second % kWindowSeconds
    std::vector<std::uint32_t> window_slots;  // [kWindowSeconds, E]
  };

  LayerExpertStats LayerStatsAt(std::int64_t second, std::size_t position) const;

  const std::vector<int> layers_;
  const std::size_t num_experts_;
  const int top_k_;
  std::vector<Layer> ledger_;  // parallel to layers_
};

}  // namespace penstock
