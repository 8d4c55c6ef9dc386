// The claims of the report, held by small simulations with fixed seeds; the large ones are
// tests/bench/experiment_simulation.cc.
#include <cmath>

#include "gtest/gtest.h"
#include "tests/server/experiments/statistics/simulated_experiment.h"

namespace penstock {
namespace {

// More than these many of `experiments` come by chance in one of a thousand cases, at 5 %.
int MostAlarms(int experiments) {
  return static_cast<int>(0.05 * experiments + 3.1 * std::sqrt(experiments * 0.05 * 0.95));
}

void ExpectFewFalseAlarms(const SimulationOptions& options) {
  const std::vector<MetricOutcome> outcomes = SimulateExperiments(options);
  ASSERT_EQ(outcomes.size(), 7u);
  const int most = MostAlarms(options.experiments);
  for (const MetricOutcome& outcome : outcomes) {
    SCOPED_TRACE(outcome.metric);
    EXPECT_EQ(outcome.judged, options.experiments);  // or there was nothing to alarm at
    EXPECT_LE(outcome.by_units, most);
    EXPECT_LE(outcome.by_requests, most);
    EXPECT_LE(outcome.at_every_unit, most);
    EXPECT_GE(outcome.at_every_unit, std::max(outcome.by_units, outcome.by_requests));
    // The traffic is one in which peeking does harm, where nothing guards against it.
    EXPECT_GT(outcome.t_test_by_units, 2 * most);
  }
}

TEST(SimulationTest, PeekingRaisesNoFalseAlarms) {
  ExpectFewFalseAlarms(
      {.seed = 11, .experiments = 200, .units = 3000, .effects = {}, .sequence = {}});
}

TEST(SimulationTest, NorDoesItWhereOneArmIsSmall) {
  ExpectFewFalseAlarms({.seed = 12,
                        .experiments = 150,
                        .units = 6000,
                        .treatment_share = 0.1,
                        .effects = {},
                        .sequence = {}});
}

TEST(SimulationTest, NorWhereTheSequenceIsTunedForFewUnits) {
  ExpectFewFalseAlarms({.seed = 13,
                        .experiments = 200,
                        .units = 3000,
                        .effects = {},
                        .sequence = {.tuned_units = 500}});
}

TEST(SimulationTest, LargeEffectsAreFoundBeforeTheEndAndSmallOnesByTheTTestMoreOften) {
  const std::vector<MetricOutcome> outcomes = SimulateExperiments(
      {.seed = 14, .experiments = 60, .units = 4000, .effects = {0.1, 0.4}, .sequence = {}});
  const MetricOutcome& latency = outcomes.at(1);
  ASSERT_EQ(latency.metric, "mean latency of a unit");
  EXPECT_GE(latency.power[0].t_test, latency.power[0].sequence);
  EXPECT_GE(latency.power[1].sequence, 59);
  EXPECT_GT(latency.power[1].median_units, 0);
  EXPECT_LT(latency.power[1].median_units, 1500);
}

TEST(SimulationTest, OneSeedGivesOneResult) {
  const SimulationOptions options = {
      .seed = 15, .experiments = 5, .units = 500, .effects = {0.3}, .sequence = {}};
  const std::vector<MetricOutcome> a = SimulateExperiments(options);
  const std::vector<MetricOutcome> b = SimulateExperiments(options);
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t m = 0; m < a.size(); ++m) {
    EXPECT_EQ(a[m].t_test_by_units, b[m].t_test_by_units);
    EXPECT_EQ(a[m].power.at(0).median_units, b[m].power.at(0).median_units);
  }
}

}  // namespace
}  // namespace penstock
