#include "server/experiments/statistics/confidence_sequence.h"

#include <cmath>
#include <random>

#include "gtest/gtest.h"

namespace penstock {
namespace {

// t ρ² at the tuned time for α = 0.05, found by minimizing c(t) numerically.
constexpr double kTunedProduct = 8.2119684;

ConfidenceSequence WithMixtureVariance(double rho2) {
  return ConfidenceSequence({.alpha = 0.05, .tuned_units = kTunedProduct / rho2});
}

TEST(ConfidenceSequenceTest, PValueIsOneOverTheMixtureLikelihoodRatio) {
  // ∫ exp(λS − λ²t/2) N(λ; 0, ρ²) dλ with S = z√t, by trapezoids over 400,001 points.
  EXPECT_NEAR(1 / WithMixtureVariance(0.001).PValue(1000, 2.5), 3.373417784, 1e-6);
  EXPECT_NEAR(1 / WithMixtureVariance(0.0007).PValue(5000, 3.7), 96.722900115, 1e-5);
  EXPECT_EQ(WithMixtureVariance(0.002).PValue(200, -1.0), 1);  // the ratio is 0.975
}

TEST(ConfidenceSequenceTest, RadiusIsWhereThatIntegralReachesOneOverAlpha) {
  // By bisection on the same quadrature.
  EXPECT_NEAR(WithMixtureVariance(0.001).Radius(1000), 3.6563948714, 1e-6);
  EXPECT_NEAR(WithMixtureVariance(0.0008).Radius(10000), 3.0351730206, 1e-6);
}

TEST(ConfidenceSequenceTest, IsNarrowestWhereItIsTuned) {
  const ConfidenceSequence sequence({.alpha = 0.05, .tuned_units = 5000});
  EXPECT_NEAR(sequence.Radius(5000), 3.0351224130, 1e-8);
  EXPECT_LT(sequence.Radius(5000), sequence.Radius(4900));
  EXPECT_LT(sequence.Radius(5000), sequence.Radius(5100));
}

TEST(ConfidenceSequenceTest, PValueReachesAlphaOnTheInterval) {
  const ConfidenceSequence sequence({.alpha = 0.01, .tuned_units = 2000});
  for (const double units : {200.0, 2000.0, 1e6}) {
    EXPECT_NEAR(sequence.PValue(units, sequence.Radius(units)), 0.01, 1e-12) << units;
  }
}

TEST(ConfidenceSequenceTest, ComparesTwoArms) {
  const ConfidenceSequence sequence({.alpha = 0.05, .tuned_units = 5000});
  const ArmEstimate treatment = {
      .units = 3000, .value = 11, .variance = 9, .effective_units = 3000};
  const ArmEstimate control = {.units = 2000, .value = 10, .variance = 9, .effective_units = 2000};
  const Comparison c = sequence.Compare(treatment, control).value();
  const double error = std::sqrt(9.0 / 3000 + 9.0 / 2000);  // 0.0866
  EXPECT_DOUBLE_EQ(c.difference, 1);
  EXPECT_DOUBLE_EQ(c.standard_error, error);
  EXPECT_NEAR(c.interval.lower, 1 - 3.0351224130 * error, 1e-8);
  EXPECT_NEAR(c.interval.upper, 1 + 3.0351224130 * error, 1e-8);
  EXPECT_NEAR(c.detectable, (3.0351224130 + 0.8416212336) * error, 1e-8);
  EXPECT_LT(c.p_value, 1e-20);
}

TEST(ConfidenceSequenceTest, RelativeIntervalEndsWhereTheRatioIsJustNotExcluded) {
  const ConfidenceSequence sequence({});
  const ArmEstimate treatment = {
      .units = 500, .value = -2.2, .variance = 1, .effective_units = 500};
  const ArmEstimate control = {.units = 800, .value = -2.0, .variance = 1, .effective_units = 800};
  const Comparison c = sequence.Compare(treatment, control).value();
  ASSERT_TRUE(c.relative.has_value());
  EXPECT_NEAR(c.relative->difference, -0.1, 1e-12);  // lower than control by a tenth of its size
  const double radius = sequence.Radius(1300);
  for (const double end : {c.relative->interval.lower, c.relative->interval.upper}) {
    const double ratio = 1 - end;  // control is negative
    const double error = std::sqrt(1.0 / 500 + ratio * ratio / 800);
    EXPECT_NEAR(std::abs(-2.2 + ratio * 2.0), radius * error, 1e-9);
  }
  EXPECT_EQ(c.relative->interval.Contains(0), c.interval.Contains(0));
  EXPECT_TRUE(c.relative->interval.Contains(-0.1));
}

TEST(ConfidenceSequenceTest, NothingRelativeToAControlThatMayBeZero) {
  const ArmEstimate treatment = {.units = 500, .value = 1, .variance = 1, .effective_units = 500};
  const ArmEstimate control = {.units = 500, .value = 0.1, .variance = 1, .effective_units = 500};
  const auto comparison = ConfidenceSequence({}).Compare(treatment, control);
  ASSERT_TRUE(comparison.has_value());
  EXPECT_FALSE(comparison->relative.has_value());
}

TEST(ConfidenceSequenceTest, NoArmIsSurerThanTheTwoPooled) {
  // The small arm met no error yet: its own variance would be zero.
  const ArmEstimate treatment = {.units = 200, .value = 0, .variance = 0, .effective_units = 200};
  const ArmEstimate control = {
      .units = 1800, .value = 0.01, .variance = 0.0099, .effective_units = 1800};
  const Comparison c = ConfidenceSequence({}).Compare(treatment, control).value();
  EXPECT_GT(c.standard_error, std::sqrt(0.0099 * 1799 / 1998 / 200));
  EXPECT_TRUE(c.interval.Contains(0));
}

TEST(ConfidenceSequenceTest, SaysNothingTooEarlyOrWithoutVariation) {
  const ConfidenceSequence sequence({.min_effective_units = 100});
  const ArmEstimate many = {.units = 1000, .value = 1, .variance = 1, .effective_units = 1000};
  ArmEstimate few = many;
  few.effective_units = 99.9;
  EXPECT_FALSE(sequence.Compare(few, many).has_value());
  EXPECT_FALSE(sequence.Compare(many, few).has_value());
  ArmEstimate constant = many;
  constant.variance = 0;
  EXPECT_FALSE(sequence.Compare(constant, constant).has_value());
  EXPECT_TRUE(sequence.Compare(constant, many).has_value());
}

TEST(ConfidenceSequenceTest, WorksFromMergedReplicasAsFromOne) {
  std::mt19937_64 random(3);
  std::lognormal_distribution<double> seconds(0, 1);
  UnitMoments whole[2], replicas[2][2];
  for (int i = 0; i < 4000; ++i) {
    const int arm = static_cast<int>(random() % 2), replica = static_cast<int>(random() % 2);
    const double y = seconds(random), x = 1 + static_cast<double>(random() % 5);
    whole[arm].Add(y, x);
    replicas[replica][arm].Add(y, x);
  }
  const ConfidenceSequence sequence({});
  for (int arm : {0, 1}) replicas[0][arm].Merge(replicas[1][arm]);
  const auto a = sequence.Compare(*whole[1].Estimate(), *whole[0].Estimate());
  const auto b = sequence.Compare(*replicas[0][1].Estimate(), *replicas[0][0].Estimate());
  ASSERT_TRUE(a.has_value() && b.has_value());
  EXPECT_NEAR(a->interval.lower, b->interval.lower, 1e-12);
  EXPECT_NEAR(a->interval.upper, b->interval.upper, 1e-12);
  EXPECT_NEAR(a->p_value, b->p_value, 1e-12);
}

TEST(ConfidenceSequenceTest, APairedDifferenceIsHeldAgainstZero) {
  const ConfidenceSequence sequence({.alpha = 0.05});
  UnitMoments texts;
  for (int i = 0; i < 400; ++i) texts.Add(i % 2 == 0 ? -3 : 1, 10);  // nats, over ten tokens
  const auto found = sequence.AgainstZero(*texts.Estimate());
  ASSERT_TRUE(found);
  EXPECT_NEAR(found->difference, -0.1, 1e-12);
  EXPECT_NEAR(found->standard_error, 0.2 / 20, 1e-4);
  EXPECT_NEAR(found->interval.upper - found->difference,
              sequence.Radius(400) * found->standard_error, 1e-12);
  EXPECT_LT(found->interval.upper, 0);
  EXPECT_LT(found->p_value, 0.05);
  EXPECT_FALSE(found->relative);

  UnitMoments few;
  for (int i = 0; i < 20; ++i) few.Add(i % 2 == 0 ? -3 : 1, 10);
  EXPECT_FALSE(sequence.AgainstZero(*few.Estimate()));
  UnitMoments alike;
  for (int i = 0; i < 100; ++i) alike.Add(-3, 10);
  EXPECT_FALSE(sequence.AgainstZero(*alike.Estimate()));
}

}  // namespace
}  // namespace penstock
