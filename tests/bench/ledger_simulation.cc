// False alarms with the ledger in the loop: requests in, reports out, peeked at all the way.
//   ledger_simulation [experiments=1000] [units=2000] [seed=1] [max_units=200000]
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <future>

#include "tests/server/experiments/report/simulated_ledger.h"

int main(int argc, char** argv) {
  using namespace penstock;
  LedgerSimulation simulation{.experiments = 1000};
  if (argc > 1) simulation.experiments = std::atoi(argv[1]);
  if (argc > 2) simulation.units = std::atoi(argv[2]);
  if (argc > 3) simulation.seed = std::strtoull(argv[3], nullptr, 10);
  if (argc > 4) simulation.max_units = std::atoll(argv[4]);
  if (simulation.experiments < 2 || simulation.units < 100 || simulation.max_units < 1) {
    std::fprintf(stderr, "usage: %s [experiments >= 2] [units >= 100] [seed] [max_units]\n",
                 argv[0]);
    return 2;
  }
  const int all = simulation.experiments;
  LedgerSimulation half = simulation;
  half.experiments = all / 2;
  half.seed += 1'000'000;
  simulation.experiments -= half.experiments;
  std::future<LedgerAlarms> other = std::async(std::launch::async, SimulateLedger, half);
  LedgerAlarms alarms = SimulateLedger(simulation);
  const LedgerAlarms more = other.get();
  for (const auto& [metric, count] : more.intervals) alarms.intervals[metric] += count;
  alarms.verdicts += more.verdicts;
  alarms.secondary += more.secondary;
  alarms.sample_ratio += more.sample_ratio;
  alarms.judged += more.judged;
  alarms.requests += more.requests;

  const double percent = 100.0 / all;
  std::printf(
      "%d A/A experiments of %d units, %lld requests, a look every %d units; alarms in %% "
      "(Monte Carlo error of 5 %%: %.2f)\n\n| what | alarms |\n|---|--:|\n",
      all, simulation.units, static_cast<long long>(alarms.requests), simulation.look_every_units,
      100 * std::sqrt(0.05 * 0.95 / all));
  for (const auto& [metric, count] : alarms.intervals) {
    std::printf("| interval of %s | %.2f |\n", metric.c_str(), count * percent);
  }
  std::printf(
      "| verdict (latency) | %.2f |\n| any secondary metric, by Holm | %.2f |\n| sample ratio "
      "(nominal 0.1) | %.2f |\n| had an interval | %.1f |\n",
      alarms.verdicts * percent, alarms.secondary * percent, alarms.sample_ratio * percent,
      alarms.judged * percent);
}
