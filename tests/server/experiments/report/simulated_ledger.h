// A/A experiments through the whole of it: requests into a Ledger on a fake clock, reports out, and
// how often a report saw what is not there.
#pragma once

#include <cstdint>

#include "tests/server/experiments/report/simulated_alarms.h"

namespace penstock {

struct LedgerSimulation {
  std::uint64_t seed = 1;
  int experiments = 100;
  int units = 2000;  // that arrive, one a minute
  int look_every_units = 50;
  std::int64_t max_units = 200'000;  // with records
};

// A unit's window is 200 minutes. It sends 1 to 1,000 requests (Zipf, exponent 1.5), the first at
// once, the others spread over two windows, with latency, error rate and log-probability of its
// own; one latency in a hundred has a Pareto tail (shape 2.5). Every text is scored under both
// arms. Their difference has mean 0: a part of the unit's own, the same in all its texts, and one
// of the text's, both with a Pareto tail to one side. Deterministic for a seed.
LedgerAlarms SimulateLedger(const LedgerSimulation& simulation);

}  // namespace penstock
