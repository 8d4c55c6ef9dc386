// The large one is tests/bench/ledger_simulation.cc.
#include <cmath>

#include "gtest/gtest.h"
#include "tests/server/experiments/report/simulated_ledger.h"

namespace penstock {
namespace {

// More come by chance in one of a thousand cases, at 5 %.
int MostAlarms(int experiments) {
  return static_cast<int>(0.05 * experiments + 3.1 * std::sqrt(experiments * 0.05 * 0.95));
}

TEST(LedgerSimulationTest, ReturningUsersAndPeeksRaiseNoFalseAlarms) {
  const LedgerAlarms alarms = SimulateLedger({.seed = 5, .experiments = 40, .units = 1200});
  EXPECT_GE(alarms.judged, 36);
  for (const auto& [metric, count] : alarms.intervals) {
    EXPECT_LE(count, MostAlarms(40)) << metric;
  }
  EXPECT_LE(alarms.verdicts, MostAlarms(40));
  EXPECT_LE(alarms.secondary, MostAlarms(40));
  EXPECT_LE(alarms.sample_ratio, 1);
}

TEST(LedgerSimulationTest, NorDoesASubsampleThatHalvesOnTheWay) {
  const LedgerAlarms alarms =
      SimulateLedger({.seed = 6, .experiments = 40, .units = 1200, .max_units = 500});
  for (const auto& [metric, count] : alarms.intervals) {
    EXPECT_LE(count, MostAlarms(40)) << metric;
  }
  EXPECT_LE(alarms.sample_ratio, 1);
}

}  // namespace
}  // namespace penstock
