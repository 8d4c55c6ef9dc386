// What of an experiment's configuration its analysis depends on, beside its assignment.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/experiments/experiment.h"

namespace penstock {

struct AnalysisPlan {
  Experiment experiment;
  std::string revision;
  std::int64_t period = 1;
  // From a unit's first exposure. Its requests begun within it make its entry; later ones count in
  // totals alone. Units that are requests have none: they enter when they end.
  absl::Duration unit_window = absl::Hours(24);
  absl::Duration burn_in = absl::Seconds(10);       // of a slice, under `switchback`
  absl::Duration outcome_window = absl::Hours(24);  // after unit_window
  std::vector<std::string> outcomes;                // names that clients may report
  std::int64_t max_units = 200'000;                 // with records; more halve the subsample
};

}  // namespace penstock
