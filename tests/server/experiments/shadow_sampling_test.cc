#include "server/experiments/shadow_sampling.h"

#include <cmath>
#include <random>
#include <set>

#include "gtest/gtest.h"

namespace penstock {
namespace {

std::set<std::uint64_t> Sample(const ShadowSampling& sampling, std::uint64_t steps) {
  std::set<std::uint64_t> sample;
  for (std::uint64_t step = 1; step <= steps; ++step) {
    if (InShadowSample(sampling, step)) sample.insert(step);
  }
  return sample;
}

TEST(ShadowSamplingTest, DrawsTheShareOfSteps) {
  EXPECT_TRUE(Sample({.share = 0}, 10'000).empty());
  EXPECT_EQ(Sample({.share = 1}, 10'000).size(), 10'000u);
  for (const double share : {0.01, 0.1, 0.5}) {
    const double got = static_cast<double>(Sample({.share = share, .seed = 3}, 100'000).size());
    const double deviation = std::sqrt(1e5 * share * (1 - share));
    EXPECT_NEAR(got, 1e5 * share, 4 * deviation) << share;
  }
}

TEST(ShadowSamplingTest, IsAFunctionOfStepAndSeed) {
  const ShadowSampling sampling{.share = 0.02, .seed = 7};
  EXPECT_EQ(Sample(sampling, 5000), Sample(sampling, 5000));
  EXPECT_NE(Sample(sampling, 5000), Sample({.share = 0.02, .seed = 8}, 5000));
}

TEST(ShadowSamplingTest, ALargerShareKeepsTheSmallerOnesSteps) {
  const std::set<std::uint64_t> small = Sample({.share = 0.01}, 20'000),
                                large = Sample({.share = 0.05}, 20'000);
  for (const std::uint64_t step : small) EXPECT_TRUE(large.contains(step)) << step;
}

TEST(ShadowBudgetTest, AllowsNothingBeforeAnythingWasEarned) {
  ShadowBudget budget(0.01);
  EXPECT_FALSE(budget.Allows(1));
  budget.Account(absl::Seconds(1), 0, absl::ZeroDuration());
  EXPECT_TRUE(budget.Allows(1));
}

TEST(ShadowBudgetTest, SkipsWhatItExpectsToCostTooMuch) {
  ShadowBudget budget(0.01);
  budget.Account(absl::Seconds(10), 0, absl::ZeroDuration());
  budget.Account(absl::Seconds(10), 10, absl::Milliseconds(10));  // 1 ms each; 190 ms are left
  EXPECT_TRUE(budget.Allows(180));
  EXPECT_FALSE(budget.Allows(200));
}

TEST(ShadowBudgetTest, ForgetsWhatWasEarnedLongAgo) {
  ShadowBudget budget(0.01);
  budget.Account(absl::Hours(10), 1, absl::Milliseconds(1));
  EXPECT_TRUE(budget.Allows(500));
  EXPECT_FALSE(budget.Allows(700)) << "1 % of a minute";
}

// A GPU asks about one row in 200 us, and about 2,000 in 20 ms.
TEST(ShadowBudgetTest, KnowsWhatStepsOfEachSizeTake) {
  ShadowBudget budget(0.01);
  budget.Account(absl::Seconds(20), 0, absl::ZeroDuration());
  budget.Account(absl::Seconds(1), 5, absl::Microseconds(200));
  EXPECT_FALSE(budget.Allows(10'000)) << "unknown: 2,000 times as much, 0.4 s, for all one knows";
  budget.Account(absl::Seconds(30), 0, absl::ZeroDuration());
  EXPECT_TRUE(budget.Allows(10'000));
  budget.Account(absl::Seconds(1), 10'000, absl::Milliseconds(20));
  for (int i = 0; i < 100; ++i) budget.Account(absl::ZeroDuration(), 5, absl::Microseconds(200));
  EXPECT_TRUE(budget.Allows(200'000)) << "0.4 s, as the nearest size says";
  budget.Account(absl::ZeroDuration(), 10'000, absl::Milliseconds(420));  // 60 ms are left
  EXPECT_TRUE(budget.Allows(7)) << "a small step is as cheap as ever";
}

// Steps of 5 to 400 rows whose cost varies threefold about its mean: over the run the bound holds.
TEST(ShadowBudgetTest, KeepsTheCostWithinTheBoundOverARun) {
  for (const double bound : {0.01, 0.05}) {
    ShadowBudget budget(bound);
    std::mt19937 generator(5);
    std::uniform_int_distribution<int> rows(5, 400);
    std::uniform_real_distribution<double> cost(0.5, 1.5);
    absl::Duration steps, shadows;
    int asked = 0;
    for (int i = 0; i < 20'000; ++i) {
      const std::int64_t work = 5 * rows(generator);
      const absl::Duration step = absl::Microseconds(20 * work);
      const bool runs = budget.Allows(work);
      const absl::Duration shadow =
          runs ? absl::Microseconds(4 * work) * cost(generator) : absl::ZeroDuration();
      budget.Account(step, runs ? work : 0, shadow);
      steps += step;
      shadows += shadow;
      asked += runs;
    }
    EXPECT_GT(asked, 100);
    EXPECT_LE(absl::FDivDuration(shadows, steps), bound * 1.01);
    EXPECT_GE(absl::FDivDuration(shadows, steps), bound * 0.9) << "and it is used";
  }
}

}  // namespace
}  // namespace penstock
