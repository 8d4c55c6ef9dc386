#include "server/experiments/statistics/unit_moments.h"

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace penstock {
namespace {

using Units = std::vector<std::pair<double, double>>;  // numerator, denominator

UnitMoments MomentsOf(const Units& units) {
  UnitMoments moments;
  for (const auto& [numerator, denominator] : units) moments.Add(numerator, denominator);
  return moments;
}

Units RandomUnits(int count, unsigned seed) {
  std::mt19937_64 random(seed);
  std::lognormal_distribution<double> seconds(0, 1);
  std::geometric_distribution<int> requests(0.2);
  Units units;
  for (int i = 0; i < count; ++i) {
    const int n = 1 + requests(random);
    double sum = 0;
    for (int j = 0; j < n; ++j) sum += seconds(random);
    units.emplace_back(sum, n);
  }
  return units;
}

void ExpectNear(const UnitMoments& a, const UnitMoments& b, double tolerance = 1e-12) {
  const ArmEstimate x = a.Estimate().value(), y = b.Estimate().value();
  EXPECT_EQ(x.units, y.units);
  EXPECT_NEAR(x.value, y.value, tolerance * std::abs(y.value));
  EXPECT_NEAR(x.variance, y.variance, tolerance * y.variance);
  EXPECT_NEAR(x.effective_units, y.effective_units, tolerance * y.effective_units);
}

TEST(UnitMomentsTest, MeanAndVariancePerUnitAreTheUsualOnes) {
  // Mean 5; squared deviations 9+1+1+1+0+0+4+16 = 32, over 7.
  UnitMoments moments;
  for (const double y : {2, 4, 4, 4, 5, 5, 7, 9}) moments.Add(y);
  const ArmEstimate estimate = moments.Estimate().value();
  EXPECT_EQ(estimate.units, 8);
  EXPECT_DOUBLE_EQ(estimate.value, 5);
  EXPECT_DOUBLE_EQ(estimate.variance, 32.0 / 7);
  EXPECT_DOUBLE_EQ(estimate.effective_units, 8);
}

TEST(UnitMomentsTest, RatioVarianceIsThatOfTheResidualsOverTheMeanDenominator) {
  // R = 18/9 = 2, x̄ = 3; residuals y − 2x: 2, −3, 1, their squares 14, over 2, over 9.
  const ArmEstimate estimate = MomentsOf({{4, 1}, {5, 4}, {9, 4}}).Estimate().value();
  EXPECT_DOUBLE_EQ(estimate.value, 2);
  EXPECT_DOUBLE_EQ(estimate.variance, 14.0 / 2 / 9);
  EXPECT_DOUBLE_EQ(estimate.effective_units, 81.0 / 33);
}

TEST(UnitMomentsTest, EveryPartitionAndOrderMergesToTheSame) {
  const Units units = RandomUnits(1000, 7);
  const UnitMoments whole = MomentsOf(units);
  std::mt19937_64 random(11);
  for (const int parts : {2, 3, 17, 500}) {
    std::vector<UnitMoments> replicas(parts);
    for (const auto& [numerator, denominator] : units) {
      replicas[random() % parts].Add(numerator, denominator);
    }
    std::shuffle(replicas.begin(), replicas.end(), random);
    UnitMoments merged;
    for (const UnitMoments& replica : replicas) merged.Merge(replica);
    ExpectNear(merged, whole);
  }
}

TEST(UnitMomentsTest, SumsTravelThereAndBackAndAddUp) {
  const Units a = RandomUnits(300, 1), b = RandomUnits(200, 2);
  UnitMoments merged = MomentsOf(a);
  merged.Merge(MomentsOf(b));
  UnitSums sums = MomentsOf(a).Sums();
  const UnitSums more = MomentsOf(b).Sums();
  sums.units += more.units;
  sums.sum += more.sum;
  sums.sum_squares += more.sum_squares;
  sums.denominator_sum += more.denominator_sum;
  sums.denominator_sum_squares += more.denominator_sum_squares;
  sums.cross_sum += more.cross_sum;
  ExpectNear(UnitMoments::FromSums(sums), merged, 1e-10);

  double sum = 0, cross = 0;
  for (const auto& [y, x] : a) sum += y, cross += x * y;
  EXPECT_NEAR(MomentsOf(a).Sums().sum, sum, 1e-9 * sum);
  EXPECT_NEAR(MomentsOf(a).Sums().cross_sum, cross, 1e-9 * cross);
}

TEST(UnitMomentsTest, ALargeMeanLosesNoDigits) {
  UnitMoments moments, left, right;
  for (int i = 0; i < 1000; ++i) {
    const double y = 1e9 + (i % 2);
    moments.Add(y);
    (i < 300 ? left : right).Add(y);
  }
  left.Merge(right);
  EXPECT_NEAR(moments.Estimate()->variance, 250.0 / 999, 1e-6);
  EXPECT_NEAR(left.Estimate()->variance, 250.0 / 999, 1e-6);
}

TEST(UnitMomentsTest, RatioVarianceIsThatSeenOverManyExperiments) {
  UnitMoments ratios;
  double predicted = 0;
  constexpr int kExperiments = 2000;
  for (int i = 0; i < kExperiments; ++i) {
    const ArmEstimate estimate = MomentsOf(RandomUnits(200, 1000 + i)).Estimate().value();
    ratios.Add(estimate.value);
    predicted += estimate.variance / static_cast<double>(estimate.units) / kExperiments;
  }
  EXPECT_NEAR(predicted / ratios.Estimate()->variance, 1, 0.1);
}

TEST(UnitMomentsTest, NoEstimateFromOneUnitOrWithoutDenominators) {
  UnitMoments moments;
  EXPECT_FALSE(moments.Estimate().has_value());
  moments.Add(1, 2);
  EXPECT_FALSE(moments.Estimate().has_value());
  UnitMoments empty;
  empty.Add(0, 0);
  empty.Add(0, 0);
  EXPECT_FALSE(empty.Estimate().has_value());
  EXPECT_FALSE(UnitMoments::FromSums({}).Estimate().has_value());
}

}  // namespace
}  // namespace penstock
