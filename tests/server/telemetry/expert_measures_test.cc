#include "server/telemetry/expert_measures.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

namespace penstock {
namespace {

ExpertMeasures Measure(const std::vector<std::int64_t>& slots, std::int64_t rows, int top_k,
                       double entropy = 0, double topk_mass = 0) {
  return ComputeExpertMeasures(
      {.rows = rows, .slots = slots, .entropy = entropy, .topk_mass = topk_mass}, top_k);
}

// Loads 0.5, 0.3, 0.2, 0, worked out by hand.
TEST(ExpertMeasures, FollowTheirFormulas) {
  const ExpertMeasures measures = Measure({10, 6, 4, 0}, 10, 2, 10 * std::log(4) / 2, 7.5);
  EXPECT_DOUBLE_EQ(measures.entropy_ratio, 0.5);
  EXPECT_NEAR(measures.load_entropy_ratio, 1.0296530140645737 / 1.3862943611198906, 1e-15);
  EXPECT_DOUBLE_EQ(measures.imbalance_ratio, 2);
  EXPECT_NEAR(measures.load_cv, std::sqrt(0.0325) / 0.25, 1e-15);
  EXPECT_DOUBLE_EQ(measures.utilization_ratio, 0.75);
  EXPECT_EQ(measures.idle, 1);
  EXPECT_DOUBLE_EQ(measures.topk_mass_ratio, 0.75);
}

TEST(ExpertMeasures, EvenLoadIsOneEverywhere) {
  const ExpertMeasures measures = Measure({5, 5, 5, 5}, 10, 2);
  EXPECT_DOUBLE_EQ(measures.load_entropy_ratio, 1);
  EXPECT_DOUBLE_EQ(measures.imbalance_ratio, 1);
  EXPECT_DOUBLE_EQ(measures.load_cv, 0);
  EXPECT_DOUBLE_EQ(measures.utilization_ratio, 1);
  EXPECT_EQ(measures.idle, 0);
}

TEST(ExpertMeasures, CollapsedLoadHasNoEntropy) {
  const ExpertMeasures measures = Measure({10, 0, 0, 0}, 10, 1);
  EXPECT_DOUBLE_EQ(measures.load_entropy_ratio, 0);
  EXPECT_DOUBLE_EQ(measures.imbalance_ratio, 4);
  EXPECT_EQ(measures.idle, 3);
}

TEST(ExpertMeasures, ATenthOfTheMeanLoadIsUse) {
  // Mean 10 per expert: 1 is a tenth.
  EXPECT_DOUBLE_EQ(Measure({1, 19}, 20, 1).utilization_ratio, 1);
  // Mean 10.5: 1 is less than a tenth.
  EXPECT_DOUBLE_EQ(Measure({1, 20}, 21, 1).utilization_ratio, 0.5);
}

TEST(ExpertMeasures, OneExpertHasRatiosOfOne) {
  const ExpertMeasures measures = Measure({7}, 7, 1, 0, 7);
  EXPECT_EQ(measures.entropy_ratio, 1);
  EXPECT_EQ(measures.load_entropy_ratio, 1);
  EXPECT_EQ(measures.imbalance_ratio, 1);
  EXPECT_EQ(measures.load_cv, 0);
  EXPECT_EQ(measures.topk_mass_ratio, 1);
}

}  // namespace
}  // namespace penstock
