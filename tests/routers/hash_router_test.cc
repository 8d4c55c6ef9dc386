#include <string>
#include <vector>

#include "ATen/ATen.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/routers/sample_routers.h"

namespace penstock {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

RouterModel SmallModel() {
  RouterModel model = sample::Model(8, 3, 2);
  model.shape.vocab_size = 5;
  model.shape.layers = {0};
  return model;
}

RouterPackage Start(const RouterModel& model, std::vector<std::int64_t> counts,
                    std::vector<double> mass) {
  const sample::Gates gates(model);
  RouterStart start{.model = model,
                    .gates = gates.views,
                    .token_counts = std::move(counts),
                    .gate_mass = std::move(mass)};
  auto package = InitRouter(sample::Kind("hash"), start);
  EXPECT_TRUE(package.ok()) << package.status();
  return *std::move(package);
}

std::vector<int> Table(const RouterPackage& package) {
  const at::Tensor table = sample::TensorOf(package, "layers.0.table");
  return {table.const_data_ptr<int>(), table.const_data_ptr<int>() + table.numel()};
}

TEST(HashRouterTest, GivesFrequentTokensTheLeastLoadedExpertsFirst) {
  // By falling count: token 3 (9), 1 (5), 4 (5), then 0 and 2 (0, counted as 1).
  //   3 → {0,1}: loads 9 9 0;  1 → {2,0}: 14 9 5;  4 → {2,1}: 14 14 10;  0 → {2,0}: 15 14 11;  2 →
  //   {2,1}.
  const RouterPackage package = Start(SmallModel(), {0, 5, 0, 9, 5}, {0.25});
  EXPECT_THAT(Table(package), ElementsAre(2, 0, 2, 0, 2, 1, 0, 1, 2, 1));
  EXPECT_FLOAT_EQ(sample::TensorOf(package, "layers.0.c").item<float>(), 0.25f);
}

TEST(HashRouterTest, WithoutATextCountsEveryTokenOnce) {
  const RouterPackage package = Start(SmallModel(), {}, {});
  EXPECT_THAT(Table(package), ElementsAre(0, 1, 2, 0, 1, 2, 0, 1, 2, 0));
  EXPECT_FLOAT_EQ(sample::TensorOf(package, "layers.0.c").item<float>(), 2.0f / 3.0f);
}

TEST(HashRouterTest, RoutesByTokenAlone) {
  RouterModel model = SmallModel();
  const RouterPackage package = Start(model, {0, 5, 0, 9, 5}, {0.25});
  const at::Tensor tokens = at::tensor({3, 0, 3}, at::kLong);
  const Routing r = (*MakeRouter(package, model, {}))->Route(0, sample::Normal({3, 8}, 1), tokens);
  EXPECT_TRUE(r.experts.equal(at::tensor({0, 1, 2, 0, 0, 1}, at::kInt).view({3, 2})));
  EXPECT_TRUE(r.weights.equal(at::full({3, 2}, 0.125f)));
  EXPECT_TRUE(r.probabilities[0].equal(at::tensor({0.5f, 0.5f, 0.0f})));
  model.shape.norm_topk_prob = true;
  const Routing normalized =
      (*MakeRouter(package, model, {}))->Route(0, sample::Normal({3, 8}, 1), tokens);
  EXPECT_TRUE(normalized.weights.equal(at::full({3, 2}, 0.5f)));
}

TEST(HashRouterTest, FailsRowsWhoseTokenIsBeyondTheTable) {
  const RouterModel model = SmallModel();
  const auto router = *MakeRouter(Start(model, {}, {}), model, {});
  const Routing r = router->Route(0, sample::Normal({3, 8}, 1), at::tensor({5, 4, -1}, at::kLong));
  EXPECT_TRUE(r.finite.equal(at::tensor({0, 1, 0}, at::kInt).to(at::kBool)));
  EXPECT_GE(r.experts.min().item<int>(), 0);
  EXPECT_EQ(r.weights[0].abs().max().item<float>(), 0.0f);
}

TEST(HashRouterTest, RefusesBadTablesAndMasses) {
  const auto refusal = [](const char* name, std::size_t element, auto value) {
    const RouterPackage package = Start(SmallModel(), {}, {});
    auto* bytes = const_cast<std::byte*>(package.tensors.at(name).bytes.data());
    std::memcpy(bytes + element * sizeof value, &value, sizeof value);
    return std::string(CheckTensors(package, "f").message());
  };
  EXPECT_EQ(refusal("layers.0.table", 7, 3),
            "f: tensor \"layers.0.table\": got expert 3 in row 3, want 0 to 2");
  EXPECT_EQ(refusal("layers.0.table", 7, -1),
            "f: tensor \"layers.0.table\": got expert -1 in row 3, want 0 to 2");
  EXPECT_EQ(refusal("layers.0.table", 1, 0),
            "f: tensor \"layers.0.table\": got expert 0 twice in row 0, want each at most once");
  for (const float c : {0.0f, -0.5f, 1.5f}) {
    EXPECT_THAT(refusal("layers.0.c", 0, c), HasSubstr("want a number in (0, 1]"));
  }
  EXPECT_EQ(refusal("layers.0.c", 0, 1.0f), "");
}

TEST(HashRouterTest, NeedsTheVocabularyOfTheModel) {
  RouterModel model = SmallModel();
  const sample::Gates gates(model);
  RouterStart start{.model = model, .gates = gates.views};
  start.hyper = {{"vocab_size", std::int64_t{6}}};
  EXPECT_EQ(InitRouter(sample::Kind("hash"), start).status().message(),
            "hyper.vocab_size: got 6, want 5, the model's");
}

}  // namespace
}  // namespace penstock
