// False alarms with the ledger in the loop: requests in, reports out, peeked at all the way.
//   ledger_simulation [experiments=1000] [units=2000] [seed=1] [max_units=200000]
//   ledger_simulation switchback [experiments=1000] [slices=1000] [seed=1] [autocorrelation=0.95]
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <string_view>

#include "tests/server/experiments/report/simulated_ledger.h"
#include "tests/server/experiments/report/simulated_switchback.h"

namespace penstock {
namespace {

// Half of the experiments each on a thread of its own.
template <typename Simulation>
LedgerAlarms InHalves(Simulation simulation, LedgerAlarms (*simulate)(const Simulation&)) {
  Simulation half = simulation;
  half.experiments = simulation.experiments / 2;
  half.seed += 1'000'000;
  simulation.experiments -= half.experiments;
  std::future<LedgerAlarms> other = std::async(std::launch::async, simulate, half);
  LedgerAlarms alarms = simulate(simulation);
  alarms.Merge(other.get());
  return alarms;
}

void Print(const LedgerAlarms& alarms, int experiments) {
  const double percent = 100.0 / experiments;
  std::printf(
      "%lld requests; alarms in %% (Monte Carlo error of 5 %%: %.2f)\n\n"
      "| what | alarms | measured |\n|---|--:|--:|\n",
      static_cast<long long>(alarms.requests), 100 * std::sqrt(0.05 * 0.95 / experiments));
  for (const auto& [metric, count] : alarms.intervals) {
    std::printf("| interval of %s | %.2f | %.1f |\n", metric.c_str(), count * percent,
                alarms.measured.at(metric) * percent);
  }
  std::printf(
      "| verdict (latency) | %.2f | %.1f |\n| any secondary metric, by Holm | %.2f | |\n"
      "| sample ratio (nominal 0.1) | %.2f | |\n| subsample halved | %.1f | |\n",
      alarms.verdicts * percent, alarms.judged * percent, alarms.secondary * percent,
      alarms.sample_ratio * percent, alarms.halved * percent);
}

int Users(int argc, char** argv) {
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
  std::printf("%d A/A experiments of %d units, a look every %d units, ", simulation.experiments,
              simulation.units, simulation.look_every_units);
  Print(InHalves(simulation, SimulateLedger), simulation.experiments);
  return 0;
}

int Slices(int argc, char** argv) {
  SwitchbackSimulation simulation{.experiments = 1000};
  if (argc > 1) simulation.experiments = std::atoi(argv[1]);
  if (argc > 2) simulation.slices = std::atoi(argv[2]);
  if (argc > 3) simulation.seed = std::strtoull(argv[3], nullptr, 10);
  if (argc > 4) simulation.autocorrelation = std::atof(argv[4]);
  if (simulation.experiments < 2 || simulation.slices < 100 || simulation.autocorrelation < 0 ||
      simulation.autocorrelation > 1) {
    std::fprintf(stderr,
                 "usage: ledger_simulation switchback [experiments >= 2] [slices >= 100] [seed] "
                 "[autocorrelation, 0 to 1]\n");
    return 2;
  }
  std::printf("%d A/A experiments of %d slices, autocorrelation %g, a look every %d slices, ",
              simulation.experiments, simulation.slices, simulation.autocorrelation,
              simulation.look_every_slices);
  Print(InHalves(simulation, SimulateSwitchback), simulation.experiments);
  return 0;
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  const bool slices = argc > 1 && std::string_view(argv[1]) == "switchback";
  return slices ? penstock::Slices(argc - 1, argv + 1) : penstock::Users(argc, argv);
}
