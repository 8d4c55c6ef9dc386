#include "server/experiments/statistics/quantile_sketch.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace penstock {
namespace {

constexpr double kQuantiles[] = {0, 0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1};

void ExpectWithinTheStatedError(std::vector<double> values) {
  QuantileSketch sketch;
  for (const double value : values) sketch.Add(value);
  std::sort(values.begin(), values.end());
  ASSERT_EQ(sketch.count(), static_cast<std::int64_t>(values.size()));
  for (const double q : kQuantiles) {
    const double exact = values[static_cast<std::size_t>(q * (values.size() - 1.0))];
    EXPECT_NEAR(sketch.Quantile(q).value(), exact,
                QuantileSketch::kRelativeError * std::abs(exact) * (1 + 1e-9))
        << q;
  }
}

TEST(QuantileSketchTest, EveryQuantileIsWithinTheStatedError) {
  std::mt19937_64 random(1);
  std::lognormal_distribution<double> seconds(-3, 2);
  std::normal_distribution<double> around_zero;
  std::uniform_real_distribution<double> uniform;
  const std::function<double()> sources[] = {
      [&] { return seconds(random); },
      [&] { return around_zero(random); },
      [&] { return -seconds(random); },
      [&] { return std::pow(uniform(random), -1 / 1.5); },  // Pareto, infinite variance
      [&] { return std::floor(3 * uniform(random)); },      // zeros among them
  };
  for (const auto& source : sources) {
    for (const int size : {1, 2, 10, 50'000}) {
      std::vector<double> values(size);
      std::generate(values.begin(), values.end(), source);
      ExpectWithinTheStatedError(values);
    }
  }
}

TEST(QuantileSketchTest, EveryPowerOfTenInRangeIsWithinTheStatedError) {
  for (int exponent = -9; exponent < 12; ++exponent) {
    ExpectWithinTheStatedError({std::pow(10, exponent)});
    ExpectWithinTheStatedError({-std::pow(10, exponent) * 1.0001, 0});
  }
}

TEST(QuantileSketchTest, CountsUpToABoundWithinTheErrorOfTheBound) {
  QuantileSketch sketch;
  EXPECT_EQ(sketch.CountUpTo(1), 0);
  for (int i = 1; i <= 1000; ++i) sketch.Add(i * 0.001);
  sketch.Add(0, 10);
  sketch.Add(-2, 5);
  EXPECT_EQ(sketch.count(), 1015);
  EXPECT_EQ(sketch.CountUpTo(-3), 0);
  EXPECT_EQ(sketch.CountUpTo(-1), 5);
  EXPECT_EQ(sketch.CountUpTo(0), 15);
  EXPECT_EQ(sketch.CountUpTo(2), 1015);
  for (const double bound : {0.05, 0.2, 0.5, 0.9}) {
    EXPECT_NEAR(static_cast<double>(sketch.CountUpTo(bound)), 15 + 1000 * bound,
                1 + 1000 * bound * QuantileSketch::kRelativeError)
        << bound;
  }
}

TEST(QuantileSketchTest, MergesToExactlyTheWhole) {
  std::mt19937_64 random(2);
  std::normal_distribution<double> values;
  QuantileSketch whole, parts[5], merged;
  for (int i = 0; i < 10'000; ++i) {
    const double value = values(random);
    whole.Add(value);
    parts[random() % 5].Add(value);
  }
  for (const int i : {3, 0, 4, 1, 2}) merged.Merge(parts[i]);
  EXPECT_EQ(merged.count(), whole.count());
  EXPECT_EQ(merged.buckets().positive, whole.buckets().positive);
  EXPECT_EQ(merged.buckets().negative, whole.buckets().negative);
  EXPECT_EQ(merged.buckets().zeros, whole.buckets().zeros);
}

TEST(QuantileSketchTest, IsBoundedWhateverComes) {
  QuantileSketch sketch;
  for (const double sign : {1.0, -1.0}) {
    for (int i = -32'000; i < 32'000; ++i) sketch.Add(sign * std::pow(10, i / 100.0));
  }
  EXPECT_LE(sketch.buckets().positive.size(), 2421u);
  EXPECT_EQ(sketch.buckets().positive.size(), sketch.buckets().negative.size());
  EXPECT_NEAR(sketch.Quantile(1).value(), QuantileSketch::kLargest,
              QuantileSketch::kRelativeError * QuantileSketch::kLargest);
  EXPECT_EQ(sketch.Quantile(0.5), 0);
  const std::int64_t before = sketch.count();
  sketch.Add(std::numeric_limits<double>::infinity());
  sketch.Add(std::numeric_limits<double>::quiet_NaN());
  EXPECT_EQ(sketch.count(), before);
  EXPECT_FALSE(QuantileSketch().Quantile(0.5).has_value());
}

TEST(QuantileSketchTest, TravelsAsBucketsAndRefusesDamagedOnes) {
  QuantileSketch sketch;
  for (const double value : {-2.0, 0.0, 3.0, 1e-9, 1e13}) sketch.Add(value);
  const auto back = QuantileSketch::FromBuckets(sketch.buckets());
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->count(), 5);
  EXPECT_EQ(back->Quantile(0.75), sketch.Quantile(0.75));

  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  EXPECT_FALSE(QuantileSketch::FromBuckets({.zeros = -1}).ok());
  EXPECT_FALSE(QuantileSketch::FromBuckets({.positive = {{1, 0}}}).ok());
  EXPECT_FALSE(QuantileSketch::FromBuckets({.positive = {{5000, 1}}}).ok());
  EXPECT_FALSE(QuantileSketch::FromBuckets({.negative = {{-5000, 1}}}).ok());
  EXPECT_FALSE(QuantileSketch::FromBuckets({.positive = {{1, kMost}}, .zeros = 1}).ok());
}

}  // namespace
}  // namespace penstock
