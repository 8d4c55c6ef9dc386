#include "kernels/normal.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

namespace penstock {
namespace {

TEST(NormalQuantileTest, AgreesWithTabulatedQuantiles) {
  // Python 3.11, statistics.NormalDist().inv_cdf(p).
  const struct {
    double p, z;
  } known[] = {{0.5, 0.0},
               {0.975, 1.9599639845400536},
               {0.025, -1.9599639845400538},
               {0.9, 1.2815515655446008},
               {1e-10, -6.361340902404056},
               {1e-16, -8.222082216130435}};
  for (const auto& [p, z] : known)
    EXPECT_NEAR(NormalQuantile(p), z, 1e-13 * std::fmax(1.0, std::fabs(z))) << p;
}

TEST(FillNormalTest, HasMeanZeroAndTheGivenDeviation) {
  std::vector<float> x(100000);
  FillNormal(7, {.major = 3, .minor = 1}, 0.5, x);
  double sum = 0.0, squares = 0.0, fourth = 0.0;
  for (const float v : x) {
    sum += v;
    squares += double{v} * v;
    fourth += std::pow(double{v}, 4);
  }
  const double n = static_cast<double>(x.size());
  EXPECT_NEAR(sum / n, 0.0, 5 * 0.5 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 0.25, 0.005);
  EXPECT_NEAR(fourth / n / (0.25 * 0.25), 3.0, 0.1);
}

TEST(FillNormalTest, GivesTheSameNumbersOnEveryPlatform) {
  std::vector<float> x(5);
  FillNormal(42, {.major = 1, .minor = 2}, 1.0, x);
  const std::uint32_t known[] = {0x3fa31b1du, 0x3fa1d11eu, 0x3eeca0fau, 0xbfcc532eu, 0x3ffb7765u};
  for (int i = 0; i < 5; ++i)
    EXPECT_EQ(std::bit_cast<std::uint32_t>(x[i]), known[i]) << i << ": " << x[i];
}

TEST(FillNormalTest, PrefixesAgreeAndStreamsDiffer) {
  std::vector<float> some(7), more(20), other(7), seed(7);
  FillNormal(1, {}, 1.0, some);
  FillNormal(1, {}, 1.0, more);
  FillNormal(1, {.major = 0, .minor = 1}, 1.0, other);
  FillNormal(2, {}, 1.0, seed);
  EXPECT_TRUE(std::equal(some.begin(), some.end(), more.begin()));
  EXPECT_NE(some, other);
  EXPECT_NE(some, seed);
}

}  // namespace
}  // namespace penstock
