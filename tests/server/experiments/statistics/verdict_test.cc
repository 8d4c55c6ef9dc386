#include "server/experiments/statistics/verdict.h"

#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/experiments/statistics/holm.h"
#include "server/experiments/statistics/sample_ratio.h"

namespace penstock {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pointwise;

TEST(HolmTest, AdjustsStepByStep) {
  // 4 × 0.005, 3 × 0.01, 2 × 0.03, then no less than the one before.
  const std::vector<double> p = {0.01, 0.04, 0.03, 0.005};
  EXPECT_THAT(HolmAdjusted(p), Pointwise(DoubleNear(1e-12), {0.03, 0.06, 0.06, 0.02}));
}

TEST(HolmTest, IsCappedAtOneAndKeepsASingleValue) {
  EXPECT_THAT(HolmAdjusted(std::vector{0.6, 0.7}), ElementsAre(1, 1));
  EXPECT_THAT(HolmAdjusted(std::vector{0.04}), ElementsAre(0.04));
  EXPECT_THAT(HolmAdjusted(std::vector<double>{}), IsEmpty());
}

TEST(VerdictTest, FollowsTheInterval) {
  const auto judge = [](Interval interval, Better better) {
    return Judge(interval, better, 0.1, 1);
  };
  EXPECT_EQ(judge({0.05, 0.3}, Better::kHigher), Verdict::kBetter);
  EXPECT_EQ(judge({0.05, 0.3}, Better::kLower), Verdict::kWorse);
  EXPECT_EQ(judge({-0.3, -0.05}, Better::kHigher), Verdict::kWorse);
  EXPECT_EQ(judge({-0.3, -0.05}, Better::kLower), Verdict::kBetter);
  EXPECT_EQ(judge({-0.05, 0.3}, Better::kHigher), Verdict::kNotEnoughUnits);
  EXPECT_EQ(judge({-0.09, 0.09}, Better::kHigher), Verdict::kNoLargerDifference);
  EXPECT_EQ(judge({-0.1, 0.09}, Better::kHigher), Verdict::kNotEnoughUnits);
  EXPECT_EQ(judge({0.01, 0.09}, Better::kLower), Verdict::kNoLargerDifference);
}

TEST(VerdictTest, WaitsForUnitsAndIsWithheldWhereSharesAreBroken) {
  EXPECT_EQ(Judge(std::nullopt, Better::kHigher, 0.1, 1), Verdict::kNotEnoughUnits);
  EXPECT_EQ(Judge(std::nullopt, Better::kHigher, 0.1, kSampleRatioAlarm), Verdict::kWithheld);
  EXPECT_EQ(Judge(Interval{1, 2}, Better::kHigher, 0.1, 1e-9), Verdict::kWithheld);
  EXPECT_EQ(Judge(Interval{1, 2}, Better::kHigher, 0.1, 0.002), Verdict::kBetter);
}

TEST(VerdictTest, EveryVerdictHasANameAndWordsOfItsOwn) {
  std::set<std::string_view> names, words;
  for (const Verdict verdict : {Verdict::kNotEnoughUnits, Verdict::kBetter, Verdict::kWorse,
                                Verdict::kNoLargerDifference, Verdict::kWithheld}) {
    names.insert(VerdictName(verdict));
    words.insert(VerdictWords(verdict));
  }
  EXPECT_EQ(names.size(), 5u);
  EXPECT_EQ(words.size(), 5u);
  EXPECT_FALSE(names.contains("") || words.contains(""));
}

}  // namespace
}  // namespace penstock
