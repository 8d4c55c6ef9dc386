#include "kernels/head_mixture.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/gelu.h"
#include "kernels/normal.h"

namespace penstock {
namespace {

TEST(HeadMixtureTest, IsTheLogOfTheMeanOfSoftmaxes) {
  constexpr int kHeads = 3, kExperts = 7;
  std::vector<float> scores(kHeads * kExperts), logits(kExperts);
  FillNormal(1, {}, 3.0, scores);
  HeadMixtureCpu({.scores = scores.data(),
                  .rows = 1,
                  .heads = kHeads,
                  .experts = kExperts,
                  .logits = logits.data()});
  std::vector<double> mean(kExperts);
  for (int h = 0; h < kHeads; ++h) {
    double sum = 0.0;
    for (int e = 0; e < kExperts; ++e) sum += std::exp(double{scores[h * kExperts + e]});
    for (int e = 0; e < kExperts; ++e)
      mean[e] += std::exp(double{scores[h * kExperts + e]}) / sum / kHeads;
  }
  for (int e = 0; e < kExperts; ++e) EXPECT_NEAR(logits[e], std::log(mean[e]), 1e-5);
}

TEST(HeadMixtureTest, NeverTakesTheLogOfZero) {
  // In each head one expert has it all: its mean is one half, the third expert's is far below the
  // smallest float.
  const std::vector<float> scores = {500.0f, 0.0f, 0.0f, 0.0f, 500.0f, 0.0f};
  std::vector<float> logits(3);
  HeadMixtureCpu(
      {.scores = scores.data(), .rows = 1, .heads = 2, .experts = 3, .logits = logits.data()});
  EXPECT_FLOAT_EQ(logits[0], std::log(0.5f));
  EXPECT_FLOAT_EQ(logits[1], std::log(0.5f));
  EXPECT_FLOAT_EQ(logits[2], -500.0f);
}

TEST(HeadMixtureTest, CarriesNaNIntoTheWholeRowAndNoFurther) {
  const std::vector<float> scores = {0.0f, std::nanf(""), 1.0f, 2.0f};
  std::vector<float> logits(4);
  HeadMixtureCpu(
      {.scores = scores.data(), .rows = 2, .heads = 1, .experts = 2, .logits = logits.data()});
  EXPECT_TRUE(std::isnan(logits[0]));
  EXPECT_TRUE(std::isnan(logits[1]));
  EXPECT_TRUE(std::isfinite(logits[2]) && std::isfinite(logits[3]));
}

TEST(GeluTest, AgreesWithItsDefinitions) {
  const std::vector<float> x = {-5.0f, -1.0f, -0.1f, 0.0f, 0.3f, 1.0f, 4.0f};
  std::vector<float> erf(x.size()), tanh(x.size());
  GeluCpu(x.data(), erf.data(), static_cast<std::int64_t>(x.size()), GeluForm::kErf);
  GeluCpu(x.data(), tanh.data(), static_cast<std::int64_t>(x.size()), GeluForm::kTanh);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double v = x[i];
    EXPECT_NEAR(erf[i], 0.5 * v * (1 + std::erf(v / std::sqrt(2.0))), 1e-6);
    EXPECT_NEAR(tanh[i],
                0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v))), 1e-6);
  }
}

}  // namespace
}  // namespace penstock
