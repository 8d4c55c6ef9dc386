#include "server/router_measures.h"

#include <cmath>

#include "gtest/gtest.h"

namespace penstock {
namespace {

TEST(RouterMeasuresTest, MeansOverTheLayersThatHaveRows) {
  const std::vector<RoutedLayer> layers = {
      {.rows = 10, .slots = {5, 5, 5, 5}, .entropy = 10 * std::log(4)},
      {.rows = 5, .slots = {10, 0, 0, 0}, .entropy = 0},
      {.rows = 0, .slots = {0, 0, 0, 0}, .entropy = 0}};
  const std::optional<RouterMeasures> measures = MeasureRouter(layers);
  ASSERT_TRUE(measures.has_value());
  EXPECT_DOUBLE_EQ(measures->token_entropy, 0.5);
  EXPECT_DOUBLE_EQ(measures->load_entropy, 0.5);
  EXPECT_DOUBLE_EQ(measures->imbalance, (1 + 4) / 2.0);
  EXPECT_DOUBLE_EQ(measures->idle_experts, (0 + 3) / 2.0);
  EXPECT_FALSE(MeasureRouter({layers.data() + 2, 1}).has_value());
  EXPECT_FALSE(MeasureRouter({}).has_value());
}

TEST(RouterMeasuresTest, TheMinuteIsTelemetrysOwn) {
  LayerExpertStats busy, idle;
  busy.window.emplace();
  busy.window->entropy_ratio = 0.5;
  busy.window->load_entropy_ratio = 0.75;
  busy.window->imbalance_ratio = 2;
  busy.window->idle = 3;
  const auto measures = MeasuresLately(std::vector{busy, idle});
  ASSERT_TRUE(measures.has_value());
  EXPECT_EQ(measures->token_entropy, 0.5);
  EXPECT_EQ(measures->load_entropy, 0.75);
  EXPECT_EQ(measures->imbalance, 2);
  EXPECT_EQ(measures->idle_experts, 3);
  EXPECT_FALSE(MeasuresLately(std::vector{idle}).has_value());
}

TEST(RouterMeasuresTest, RoutingBetweenTwoSnapshotsIsTheirDifference) {
  ExpertLedger ledger({1, 3}, 4, 2);
  const auto add = [&](int layer, std::vector<std::int64_t> slots, double entropy) {
    std::int64_t sum = 0;
    for (const std::int64_t count : slots) sum += count;
    ledger.Add(100, {.router = "linear",
                     .layer = layer,
                     .rows = sum / 2,
                     .slots = std::move(slots),
                     .entropy = entropy,
                     .topk_mass = 0});
  };
  add(1, {4, 2, 0, 0}, 1.5);
  const auto before = ledger.StatsAt(100);
  add(1, {1, 1, 2, 0}, 0.5);
  add(3, {2, 2, 0, 0}, 0.25);
  // The window of a minute has passed: totals alone remain.
  const auto after = ledger.StatsAt(200);
  const std::vector<RoutedLayer> routing = RoutingBetween(before, after);
  ASSERT_EQ(routing.size(), 2u);
  EXPECT_EQ(routing[0].rows, 2);
  EXPECT_EQ(routing[0].slots, (std::vector<std::int64_t>{1, 1, 2, 0}));
  EXPECT_EQ(routing[0].entropy, 0.5);
  EXPECT_EQ(routing[1].rows, 2);
  EXPECT_EQ(routing[1].slots, (std::vector<std::int64_t>{2, 2, 0, 0}));
  EXPECT_EQ(routing[1].entropy, 0.25);
  EXPECT_TRUE(RoutingBetween(after, before).empty()) << "loaded anew meanwhile";
  EXPECT_TRUE(RoutingBetween({}, after).empty());
}

}  // namespace
}  // namespace penstock
