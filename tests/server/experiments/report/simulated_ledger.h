// A/A experiments through the whole of it: requests into a Ledger on a fake clock, reports out, and
// how often a report saw what is not there.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace penstock {

struct LedgerSimulation {
  std::uint64_t seed = 1;
  int experiments = 100;
  int units = 2000;  // that arrive, one a minute
  int look_every_units = 50;
  std::int64_t max_units = 200'000;  // with records
};

// In how many experiments some look …
struct LedgerAlarms {
  std::map<std::string, int> intervals;  // … had a metric's interval leave out 0
  int verdicts = 0;                      // … called the treatment better or worse
  int secondary = 0;                     // … had any secondary metric with adjusted p ≤ 0.05
  int sample_ratio = 0;                  // … withheld the verdict
  int judged = 0;                        // … had an interval of the primary metric
  std::map<std::string, int> measured;   // … had a metric's interval
  int halved = 0;                        // the subsample was less than all units at the end
  std::int64_t requests = 0;             // in all experiments together
};

// A unit's window is 200 minutes. It sends 1 to 1,000 requests (Zipf, exponent 1.5), the first at
// once, the others spread over two windows, with latency, error rate and log-probability of its
// own; one latency in a hundred has a Pareto tail (shape 2.5). Deterministic for a seed.
LedgerAlarms SimulateLedger(const LedgerSimulation& simulation);

}  // namespace penstock
