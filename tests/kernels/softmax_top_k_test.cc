#include "kernels/softmax_top_k.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/normal.h"

namespace penstock {
namespace {

using testing::Each;
using testing::ElementsAre;

struct Decision {
  std::vector<std::int32_t> ids;
  std::vector<float> weights;
  std::vector<float> probabilities;
  bool finite;
};

Decision Route(const std::vector<float>& logits, int k, bool normalize = false) {
  Decision d{std::vector<std::int32_t>(k, -1), std::vector<float>(k),
             std::vector<float>(logits.size()), false};
  SoftmaxTopKCpu({.logits = logits.data(),
                  .rows = 1,
                  .experts = static_cast<int>(logits.size()),
                  .k = k,
                  .normalize = normalize,
                  .ids = d.ids.data(),
                  .weights = d.weights.data(),
                  .probabilities = d.probabilities.data(),
                  .finite = &d.finite});
  return d;
}

TEST(SoftmaxTopKTest, ChoosesInFallingOrder) {
  EXPECT_THAT(Route({0.0f, 3.0f, 1.0f, 2.0f}, 3).ids, ElementsAre(1, 3, 2));
}

TEST(SoftmaxTopKTest, GivesTiesToTheLowerId) {
  EXPECT_THAT(Route({1.0f, 2.0f, 1.0f, 2.0f, 1.0f}, 4).ids, ElementsAre(1, 3, 0, 2));
  EXPECT_THAT(Route({0.0f, -0.0f, 0.0f}, 2).ids, ElementsAre(0, 1));
}

TEST(SoftmaxTopKTest, AgreesWithAStableSortOnRandomTies) {
  std::vector<float> logits(61);
  for (int trial = 0; trial < 500; ++trial) {
    FillNormal(trial, {}, 2.0, logits);
    for (float& z : logits) z = std::round(z);  // many ties
    const int k = 1 + trial % 61;
    std::vector<std::int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return logits[a] > logits[b]; });
    order.resize(k);
    ASSERT_EQ(Route(logits, k).ids, order) << "trial " << trial;
  }
}

TEST(SoftmaxTopKTest, WeightsAreProbabilitiesUnlessNormalized) {
  const Decision plain = Route({1.0f, 2.0f, 3.0f}, 2);
  const double sum = std::exp(1.0) + std::exp(2.0) + std::exp(3.0);
  EXPECT_NEAR(plain.weights[0], std::exp(3.0) / sum, 1e-6);
  EXPECT_EQ(plain.weights[0], plain.probabilities[2]);
  EXPECT_EQ(plain.weights[1], plain.probabilities[1]);
  const Decision normalized = Route({1.0f, 2.0f, 3.0f}, 2, true);
  EXPECT_FLOAT_EQ(normalized.weights[0] + normalized.weights[1], 1.0f);
  EXPECT_EQ(normalized.probabilities, plain.probabilities);
}

TEST(SoftmaxTopKTest, StandsLogitsThatExpWouldNot) {
  const Decision d = Route({1e30f, -1e30f, 88.0f}, 1);
  EXPECT_TRUE(d.finite);
  EXPECT_THAT(d.probabilities, ElementsAre(1.0f, 0.0f, 0.0f));
}

TEST(SoftmaxTopKTest, MarksRowsThatAreNotFinite) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const float bad : {std::nanf(""), kInfinity, -kInfinity}) {
    const Decision d = Route({1.0f, bad, 2.0f}, 2);
    EXPECT_FALSE(d.finite);
    EXPECT_THAT(d.ids, ElementsAre(0, 1));
    EXPECT_THAT(d.weights, Each(0.0f));
    EXPECT_THAT(d.probabilities, Each(0.0f));
  }
}

TEST(SoftmaxTopKTest, TakesEverythingWhenKIsAll) {
  EXPECT_THAT(Route({2.0f}, 1, true).weights, ElementsAre(1.0f));
  EXPECT_THAT(Route({1.0f, 2.0f}, 2).ids, ElementsAre(1, 0));
}

}  // namespace
}  // namespace penstock
