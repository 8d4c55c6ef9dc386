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

constexpr int kExperiments = 40;

// Most experiments come to intervals of every metric that users have, and few to false ones.
void ExpectFewAlarms(const LedgerAlarms& alarms) {
  EXPECT_GE(alarms.judged, 36);
  for (const char* metric : {"latency", "ttft", "logprob", "paired_logprob", "tokens"}) {
    const auto found = alarms.measured.find(metric);
    ASSERT_NE(found, alarms.measured.end()) << metric;
    EXPECT_GE(found->second, 36) << metric;
  }
  for (const auto& [metric, count] : alarms.intervals) {
    EXPECT_LE(count, MostAlarms(kExperiments)) << metric;
  }
  EXPECT_LE(alarms.verdicts, MostAlarms(kExperiments));
  EXPECT_LE(alarms.secondary, MostAlarms(kExperiments));
  EXPECT_LE(alarms.sample_ratio, 1);
}

TEST(LedgerSimulationTest, ReturningUsersAndPeeksRaiseNoFalseAlarms) {
  const LedgerAlarms alarms =
      SimulateLedger({.seed = 5, .experiments = kExperiments, .units = 1200});
  ExpectFewAlarms(alarms);
  EXPECT_EQ(alarms.halved, 0);
}

TEST(LedgerSimulationTest, NorDoesASubsampleThatHalvesOnTheWay) {
  const LedgerAlarms alarms =
      SimulateLedger({.seed = 6, .experiments = kExperiments, .units = 2400, .max_units = 1500});
  ExpectFewAlarms(alarms);
  EXPECT_EQ(alarms.halved, kExperiments);
}

}  // namespace
}  // namespace penstock
