// What a router did between two looks at it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace penstock {

// How a router uses its experts, means over layers (telemetry.md).
struct RouterMeasures {
  double token_entropy = 0;  // of ln E
  double load_entropy = 0;   // of ln E
  double imbalance = 0;      // E times the largest load; 1 is even
  double idle_experts = 0;
};

// What it decided in one layer. Sums: those of several looks add up.
struct RoutedLayer {
  std::int64_t rows = 0;
  std::vector<std::int64_t> slots;  // [E], to each expert; sums to rows times experts a row
  double entropy = 0;               // Σ over rows of the full softmax's, nats
};

// The measures of what was decided, whenever that was; nullopt: no layer has a row.
using MeasureRouting =
    std::function<std::optional<RouterMeasures>(std::span<const RoutedLayer> layers)>;

struct RouterLook {
  std::string router;
  absl::Time since;  // the look before
  // From then to now.
  std::int64_t rows = 0;
  absl::Duration time;
  std::vector<RoutedLayer> layers;  // in the model's order; empty: not known
  // Of the last minute of rows, for totals; nullopt: it had none.
  std::optional<RouterMeasures> lately;
};

}  // namespace penstock
