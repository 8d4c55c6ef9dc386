// A/A experiments under `mode: switchback`, through the whole of it: requests are assigned by
// slices, the router is looked at, a Ledger on a fake clock takes both, and reports are peeked at.
#pragma once

#include <cstdint>

#include "tests/server/experiments/report/simulated_alarms.h"

namespace penstock {

struct SwitchbackSimulation {
  std::uint64_t seed = 1;
  int experiments = 100;
  int slices = 1000;  // of a minute, with a burn-in of 10 s
  int look_every_slices = 10;
  // Of load and of topics, from a slice to the next. 1: a random walk, which never comes back.
  double autocorrelation = 0.95;
};

// The load drifts by itself and in a wave a day long, and with it the number of requests, their
// latency and errors, and the router's time a row. Topics drift beside it, and with them
// log-probability, repetition, and which experts rows go to. One latency in a hundred has a Pareto
// tail (shape 2.5). Neither arm changes anything. Deterministic for a seed.
LedgerAlarms SimulateSwitchback(const SwitchbackSimulation& simulation);

}  // namespace penstock
