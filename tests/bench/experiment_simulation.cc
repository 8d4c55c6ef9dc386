// False alarms and power of the experiments' statistics, by simulation: the tables of
// BENCHMARKS.md.
//   experiment_simulation [experiments=10000] [units=5000] [seed=1] [min_effective_units]
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <vector>

#include "server/experiments/statistics/sample_ratio.h"
#include "tests/server/experiments/statistics/simulated_experiment.h"

namespace penstock {
namespace {

void PrintFalseAlarms(const SimulationOptions& options, const std::vector<MetricOutcome>& found) {
  const double percent = 100.0 / options.experiments;
  std::printf(
      "\n%d A/A experiments of %d units, %.0f %% of them in the treatment; alarms in %%\n\n",
      options.experiments, options.units, 100 * options.treatment_share);
  std::printf(
      "| metric | looks every %d units | every %d requests | at every unit | t-test every %d "
      "units | t-test at the end | judged |\n|---|--:|--:|--:|--:|--:|--:|\n",
      options.look_every_units, options.look_every_requests, options.look_every_units);
  for (const MetricOutcome& m : found) {
    std::printf("| %s | %.2f | %.2f | %.2f | %.1f | %.2f | %.0f |\n", m.metric.c_str(),
                m.by_units * percent, m.by_requests * percent, m.at_every_unit * percent,
                m.t_test_by_units * percent, m.t_test_at_end * percent, m.judged * percent);
  }
}

void PrintPower(const SimulationOptions& options, const std::vector<MetricOutcome>& found) {
  const double percent = 100.0 / options.experiments;
  std::printf(
      "\n| metric | true effect, %% | found by the t-test at the end, %% | found by the "
      "sequence, %% | median units until then |\n|---|--:|--:|--:|--:|\n");
  for (const MetricOutcome& m : found) {
    for (const MetricOutcome::Power& power : m.power) {
      std::printf("| %s | %.3g | %.1f | %.1f | ", m.metric.c_str(), 100 * power.effect,
                  power.t_test * percent, power.sequence * percent);
      power.median_units > 0 ? std::printf("%.0f |\n", power.median_units)
                             : std::printf("> %d |\n", options.units);
    }
  }
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  using namespace penstock;
  SimulationOptions options;
  options.experiments = argc > 1 ? std::atoi(argv[1]) : 10'000;
  options.units = argc > 2 ? std::atoi(argv[2]) : 5000;
  options.seed = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 1;
  if (argc > 4) options.sequence.min_effective_units = std::atof(argv[4]);
  if (options.experiments < 1 || options.units < options.look_every_units) {
    std::fprintf(stderr,
                 "usage: %s [experiments >= 1] [units >= %d] [seed] [min_effective_units]\n",
                 argv[0], options.look_every_units);
    return 2;
  }
  std::printf("Monte Carlo error of 5 %%: %.2f\n",
              100 * std::sqrt(0.05 * 0.95 / options.experiments));

  options.effects = {0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4};
  std::future<std::vector<MetricOutcome>> even_found =
      std::async(std::launch::async, SimulateExperiments, options);
  SimulationOptions uneven = options;
  uneven.treatment_share = 0.1;
  uneven.effects.clear();
  uneven.seed += 1;
  const std::vector<MetricOutcome> uneven_found = SimulateExperiments(uneven);
  const std::vector<MetricOutcome> even = even_found.get();
  PrintFalseAlarms(options, even);
  PrintFalseAlarms(uneven, uneven_found);
  PrintPower(options, even);

  const int many = 3 * options.experiments;
  std::printf(
      "\nSample-ratio mismatch, %d experiments of %d units, looks every %d: alarms in %% "
      "(nominal %.1f, Monte Carlo error %.3f)\n\n| shares | alarms |\n|---|--:|\n",
      many, options.units, options.look_every_units, 100 * kSampleRatioAlarm,
      100 * std::sqrt(kSampleRatioAlarm / many));
  for (const std::vector<int>& shares :
       std::vector<std::vector<int>>{{5000, 5000}, {9000, 1000}, {5000, 3000, 2000}}) {
    const int alarms = SimulateSampleRatioAlarms(options.seed, many, options.units,
                                                 options.look_every_units, shares);
    std::printf("|");
    for (const int share : shares) std::printf(" %d", share / 100);
    std::printf(" | %.3f |\n", 100.0 * alarms / many);
  }
}
