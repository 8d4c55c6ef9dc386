// Experiments as they would run, simulated: how often would their reports be wrong?
//
// One unit arrives a tick, and goes to an arm by chance. It sends 1 to 1,000 requests (Zipf), the
// first at once, the others spread over two unit windows, among those of 200 other units. Each unit
// has a latency, an error rate and a log-probability of its own; a request's latency is log-normal
// around its unit's, and one in a hundred has a straggler's with a Pareto tail (shape 2.5: no third
// moment). When the unit's window closes it enters every metric's sums, once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/experiments/statistics/confidence_sequence.h"

namespace penstock {

struct SimulationOptions {
  std::uint64_t seed = 1;
  int experiments = 1000;
  int units = 5000;  // in both arms together, after which the experiment ends
  double treatment_share = 0.5;
  int look_every_units = 50;
  int look_every_requests = 1000;
  // True relative effects on the numerators, for the power curve; both arms are alike otherwise.
  std::vector<double> effects;
  SequenceOptions sequence;
};

// In how many experiments a metric was called different at some look.
struct MetricOutcome {
  std::string metric;
  int by_units = 0;         // looks after every look_every_units
  int by_requests = 0;      // looks after every look_every_requests
  int at_every_unit = 0;    // any rule whatever looks no oftener
  int t_test_by_units = 0;  // Welch's t-test at 5 %, looked at just as often
  int t_test_at_end = 0;    // the same, once: what it is made for
  int judged = 0;           // had enough effective units before the end

  struct Power {
    double effect = 0;
    int sequence = 0;         // found by looks after every look_every_units
    int t_test = 0;           // found at the end
    double median_units = 0;  // at which the sequence found it; 0: in fewer than half
  };
  std::vector<Power> power;  // one an effect
};

// Deterministic for a seed.
std::vector<MetricOutcome> SimulateExperiments(const SimulationOptions& options);

// Of `experiments` whose arms get exactly their shares: in how many the sample-ratio test alarms at
// some look.
int SimulateSampleRatioAlarms(std::uint64_t seed, int experiments, int units, int look_every,
                              const std::vector<int>& shares);

}  // namespace penstock
