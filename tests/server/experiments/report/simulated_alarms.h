// What a simulated experiment's reports saw, look by look, that is not there.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "server/experiments/report/report.h"

namespace penstock {

// In how many experiments some look …
struct LedgerAlarms {
  std::map<std::string, int> intervals;  // … had a metric's interval leave out 0
  std::map<std::string, int> measured;   // … had a metric's interval
  int verdicts = 0;                      // … called the treatment better or worse
  int secondary = 0;                     // … had any secondary metric with adjusted p ≤ 0.05
  int sample_ratio = 0;                  // … withheld the verdict
  int judged = 0;                        // … had an interval of the primary metric
  int halved = 0;                        // … saw less than all units in the subsample
  std::int64_t requests = 0;             // in all experiments together

  void Merge(const LedgerAlarms& other);
};

// The reports of one A/A experiment, the treatment's arm last.
class Peeks {
 public:
  void See(const ExperimentReport& report);
  void AddTo(LedgerAlarms* alarms) const;

 private:
  std::set<std::string> apart_, measured_;
  bool halved_ = false;
  bool verdict_ = false, secondary_ = false, sample_ratio_ = false, judged_ = false;
};

using Random = std::mt19937_64;

// In (0, 1).
inline double Uniform(Random& random) {
  return (static_cast<double>(random() >> 11) + 0.5) * 0x1p-53;
}

// Of shape 2.5, at least 1: no third moment. Its mean is kParetoMean.
inline double Pareto(Random& random) { return std::pow(Uniform(random), -1 / 2.5); }
inline constexpr double kParetoMean = 2.5 / 1.5;

// One in a hundred is a Pareto value below zero; the others make up for it: mean 0, and a tail to
// one side.
inline double HeavyDrop(Random& random) {
  return 0.01 * kParetoMean - (Uniform(random) < 0.01 ? Pareto(random) : 0);
}

// A seed an experiment.
std::vector<std::uint32_t> SeedsOf(std::uint64_t seed, int experiments);

}  // namespace penstock
