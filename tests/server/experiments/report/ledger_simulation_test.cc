// The large ones are tests/bench/ledger_simulation.cc.
#include <cmath>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/experiments/ledger/quantities.h"
#include "tests/server/experiments/report/simulated_ledger.h"
#include "tests/server/experiments/report/simulated_switchback.h"

namespace penstock {
namespace {

using ::testing::ElementsAreArray;

constexpr int kExperiments = 40;

// More come by chance in one of a thousand cases, at 5 %.
int MostAlarms(int experiments) {
  return static_cast<int>(0.05 * experiments + 3.1 * std::sqrt(experiments * 0.05 * 0.95));
}

// Every metric there is, beside a slice's those that users have too.
std::set<std::string> Metrics(bool of_slices) {
  std::set<std::string> names = {"paired_logprob", "outcome.click"};
  for (const MetricDefinition& metric : MetricDefinitions()) {
    if (of_slices || !metric.of_router) names.emplace(metric.name);
  }
  return names;
}

// Nearly every experiment comes to an interval of every metric, and few to false ones.
void ExpectFewAlarms(const LedgerAlarms& alarms, const std::set<std::string>& metrics) {
  EXPECT_GE(alarms.judged, 36);
  std::set<std::string> measured;
  for (const auto& [metric, count] : alarms.measured) {
    measured.insert(metric);
    EXPECT_GE(count, 36) << metric;
    EXPECT_LE(alarms.intervals.at(metric), MostAlarms(kExperiments)) << metric;
  }
  EXPECT_THAT(measured, ElementsAreArray(metrics));
  EXPECT_LE(alarms.verdicts, MostAlarms(kExperiments));
  EXPECT_LE(alarms.secondary, MostAlarms(kExperiments));
  EXPECT_LE(alarms.sample_ratio, 1);
}

TEST(LedgerSimulationTest, ReturningUsersAndPeeksRaiseNoFalseAlarms) {
  const LedgerAlarms alarms =
      SimulateLedger({.seed = 5, .experiments = kExperiments, .units = 1200});
  ExpectFewAlarms(alarms, Metrics(false));
  EXPECT_EQ(alarms.halved, 0);
}

TEST(LedgerSimulationTest, NorDoesASubsampleThatHalvesOnTheWay) {
  const LedgerAlarms alarms =
      SimulateLedger({.seed = 6, .experiments = kExperiments, .units = 2400, .max_units = 1500});
  ExpectFewAlarms(alarms, Metrics(false));
  EXPECT_EQ(alarms.halved, kExperiments);
}

TEST(LedgerSimulationTest, NorDoSlicesOfALoadThatDrifts) {
  for (const double autocorrelation : {0.95, 1.0}) {
    SCOPED_TRACE(autocorrelation);
    const LedgerAlarms alarms = SimulateSwitchback({.seed = 7,
                                                    .experiments = kExperiments,
                                                    .slices = 500,
                                                    .autocorrelation = autocorrelation});
    ExpectFewAlarms(alarms, Metrics(true));
    EXPECT_EQ(alarms.halved, 0);
  }
}

}  // namespace
}  // namespace penstock
