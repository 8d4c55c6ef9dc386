#include "routers/head_scores.h"

#include <thread>
#include <vector>

#include "ATen/ops/from_blob.h"
#include "ATen/ops/matmul.h"
#include "ATen/ops/randn.h"
#include "gtest/gtest.h"
#include "routers/row_functions.h"

namespace penstock {
namespace {

TEST(HeadScoresTest, OneProductGivesTheScoresOfAllHeads) {
  constexpr std::int64_t kHeads = 3, kExperts = 5, kWidth = 7, kD = 16, kRows = 9;
  std::vector<at::Tensor> query, keys;
  for (int layer = 0; layer < 2; ++layer) {
    query.push_back(at::randn({kHeads * kWidth, kD}));
    keys.push_back(at::randn({kHeads, kExperts, kWidth}));
  }
  const at::Tensor x = at::randn({kRows, kD});
  const HeadScores scores(query, keys);
  for (int layer = 0; layer < 2; ++layer) {
    const auto at = static_cast<std::size_t>(layer);
    const at::Tensor weights =
        at::from_blob(const_cast<void*>(scores.Of(layer)), {kHeads * kExperts, kD}, at::kFloat);
    const at::Tensor logits =
        HeadMixture(at::matmul(x, weights.t()).view({kRows, kHeads, kExperts}));
    const at::Tensor expected = QueryKeyLogits(x, query[at], keys[at]);
    EXPECT_TRUE(logits.allclose(expected, 1e-5, 2e-5)) << logits << expected;
  }
}

TEST(HeadScoresTest, ManyMayAskAtOnce) {
  const HeadScores scores({at::randn({64, 64})}, {at::randn({2, 8, 32})});
  std::vector<const void*> found(4);
  std::vector<std::thread> threads;
  for (const void*& place : found) {
    threads.emplace_back([&place, &scores] { place = scores.Of(0); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const void* place : found) EXPECT_EQ(place, found[0]);
}

}  // namespace
}  // namespace penstock
