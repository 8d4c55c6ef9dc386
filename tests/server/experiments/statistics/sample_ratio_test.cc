#include "server/experiments/statistics/sample_ratio.h"

#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "tests/server/experiments/statistics/simulated_experiment.h"

namespace penstock {
namespace {

struct KnownFactor {
  std::vector<std::int64_t> counts;
  std::vector<int> shares;
  double log_factor;
};

// The product of the predictive probabilities of each unit, κ = 500, in exact fractions.
const KnownFactor kKnownFactors[] = {
    {{60, 40}, {5000, 5000}, 0.24270745998526877},
    {{5200, 4800}, {5000, 5000}, 6.098880330954671},
    {{700, 400, 100}, {5000, 3000, 2000}, 40.015080451201584},
    {{300, 0}, {9000, 1000}, 7.095891856577509},
};

TEST(SampleRatioTest, IsOneOverTheBayesFactor) {
  for (const KnownFactor& known : kKnownFactors) {
    EXPECT_NEAR(std::log(SampleRatioPValue(known.counts, known.shares)), -known.log_factor, 1e-8);
  }
}

TEST(SampleRatioTest, CountsAsPromisedRaiseNoDoubt) {
  EXPECT_EQ(SampleRatioPValue(std::vector<std::int64_t>{1000, 1000}, std::vector{1, 1}), 1);
  EXPECT_EQ(SampleRatioPValue(std::vector<std::int64_t>{0, 0}, std::vector{1, 1}), 1);
  EXPECT_EQ(SampleRatioPValue(std::vector<std::int64_t>{10, 0}, std::vector{1, 0}), 1);
}

TEST(SampleRatioTest, AUnitInAnArmWithoutShareIsImpossible) {
  EXPECT_EQ(SampleRatioPValue(std::vector<std::int64_t>{10, 1}, std::vector{1, 0}), 0);
}

TEST(SampleRatioTest, FindsOnePercentagePointInAMillionUnits) {
  EXPECT_LT(SampleRatioPValue(std::vector<std::int64_t>{510'000, 490'000}, std::vector{1, 1}),
            1e-30);
  EXPECT_GT(SampleRatioPValue(std::vector<std::int64_t>{500'500, 499'500}, std::vector{1, 1}), 0.5);
}

TEST(SampleRatioTest, SeldomAlarmsHoweverOftenOneLooks) {
  // 10 alarms are allowed on average; 20 are three deviations more.
  EXPECT_LE(SimulateSampleRatioAlarms(5, 10'000, 1000, 50, {5000, 3000, 2000}), 20);
}

TEST(SampleRatioTest, NearlyAlwaysFindsALostTwentieth) {
  // One arm loses 5 % of its units: 51.28 % against 48.72 % of those counted.
  std::mt19937_64 random(6);
  std::bernoulli_distribution first(1 / 1.95);
  int alarms = 0;
  for (int experiment = 0; experiment < 40; ++experiment) {
    std::vector<std::int64_t> counts(2);
    for (int unit = 0; unit < 60'000; ++unit) ++counts[first(random) ? 0 : 1];
    alarms += SampleRatioPValue(counts, std::vector{1, 1}) <= kSampleRatioAlarm;
  }
  EXPECT_GE(alarms, 38);
}

}  // namespace
}  // namespace penstock
