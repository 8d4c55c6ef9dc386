// What every router kind must hold, whichever it is (Penstock's routers page, Contract).
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <tuple>

#include "ATen/ATen.h"
#include "ATen/Parallel.h"
#include "gtest/gtest.h"
#include "routers/logit_routing.h"
#include "tests/routers/sample_routers.h"

namespace penstock {
namespace {

using sample::MakeSample;
using sample::Model;
using sample::Normal;
using sample::Rows;
using sample::SameBits;
using sample::TokenIds;

class RouterContractTest : public testing::TestWithParam<std::tuple<std::string, at::ScalarType>> {
 protected:
  // One thread, but for the test of threads: on a busy machine they would wait for each other.
  void SetUp() override { at::set_num_threads(1); }

  const std::string& kind() const { return std::get<0>(GetParam()); }
  at::ScalarType dtype() const { return std::get<1>(GetParam()); }

  std::shared_ptr<const Router> Make(const RouterModel& model, const Hyper& hyper = {}) const {
    return MakeSample(kind(), model, dtype(), hyper);
  }
  at::Tensor Hidden(std::int64_t rows, std::int64_t d, std::uint64_t seed = 3) const {
    return Normal({rows, d}, seed).to(dtype());
  }

  static void ExpectValid(const Routing& r, std::int64_t rows, const RouterShape& shape) {
    ASSERT_EQ(r.experts.scalar_type(), at::kInt);
    ASSERT_EQ(r.weights.scalar_type(), at::kFloat);
    ASSERT_EQ(r.probabilities.scalar_type(), at::kFloat);
    ASSERT_EQ(r.finite.scalar_type(), at::kBool);
    ASSERT_EQ(r.experts.sizes(), at::IntArrayRef({rows, shape.top_k}));
    ASSERT_EQ(r.weights.sizes(), at::IntArrayRef({rows, shape.top_k}));
    ASSERT_EQ(r.probabilities.sizes(), at::IntArrayRef({rows, shape.experts}));
    ASSERT_EQ(r.finite.sizes(), at::IntArrayRef({rows}));
    for (std::int64_t row = 0; row < rows; ++row) {
      std::set<int> chosen;
      for (std::int64_t i = 0; i < shape.top_k; ++i) {
        const int expert = r.experts[row][i].item<int>();
        ASSERT_GE(expert, 0);
        ASSERT_LT(expert, shape.experts);
        ASSERT_TRUE(chosen.insert(expert).second)
            << "row " << row << " chose expert " << expert << " twice";
      }
    }
  }
};

TEST_P(RouterContractTest, RowsDoNotDependOnTheirNumberOrPlaceToTheBit) {
  constexpr std::int64_t kRows = 70;
  for (const std::int64_t d : {96, 100, 7}) {
    const RouterModel model = Model(d);
    const auto router = Make(model);
    const at::Tensor hidden = Hidden(kRows, d);
    const at::Tensor tokens = TokenIds(kRows, 4);
    for (int layer = 0; layer < 2; ++layer) {
      const Routing all = router->Route(layer, hidden, tokens);
      for (std::int64_t count = 1; count <= kRows; ++count) {
        const std::int64_t first = kRows - count;
        const Routing some =
            router->Route(layer, hidden.narrow(0, first, count), tokens.narrow(0, first, count));
        ASSERT_TRUE(SameBits(some, Rows(all, first, count)))
            << "d " << d << ", the last " << count << " rows";
      }
      const at::Tensor order = at::randperm(kRows, at::detail::createCPUGenerator(6), at::kLong);
      const Routing moved =
          router->Route(layer, hidden.index_select(0, order), tokens.index_select(0, order));
      const Routing expected{all.experts.index_select(0, order), all.weights.index_select(0, order),
                             all.probabilities.index_select(0, order),
                             all.finite.index_select(0, order)};
      ASSERT_TRUE(SameBits(moved, expected)) << "d " << d;
    }
  }
}

TEST_P(RouterContractTest, ThreadsDoNotChangeABit) {
  const RouterModel model = Model(2048, 60);
  const auto router = Make(model);
  for (const std::int64_t rows : {1, 300}) {
    const at::Tensor hidden = Hidden(rows, 2048);
    const at::Tensor tokens = TokenIds(rows, 4);
    const Routing one = router->Route(0, hidden, tokens);
    at::set_num_threads(4);
    const Routing four = router->Route(0, hidden, tokens);
    at::set_num_threads(1);
    EXPECT_TRUE(SameBits(one, four)) << rows << " rows";
  }
}

TEST_P(RouterContractTest, WeightsAreTheChosenProbabilitiesInFallingOrder) {
  const RouterModel model = Model();
  const Routing r = Make(model)->Route(1, Hidden(40, 100), TokenIds(40, 4));
  ExpectValid(r, 40, model.shape);
  EXPECT_TRUE(r.finite.all().item<bool>());
  EXPECT_TRUE(at::allclose(r.probabilities.sum(1), at::ones({40}), 0.0, 1e-6));
  EXPECT_TRUE((r.weights.narrow(1, 0, 3) >= r.weights.narrow(1, 1, 3)).all().item<bool>());
  EXPECT_TRUE((r.weights > 0).all().item<bool>());
  const at::Tensor chosen = r.probabilities.gather(1, r.experts.to(at::kLong));
  // No expert that was left out is more probable than one that was chosen.
  const at::Tensor left_out = r.probabilities.scatter(1, r.experts.to(at::kLong), 0.0);
  EXPECT_TRUE((std::get<0>(left_out.max(1)) <= std::get<0>(chosen.min(1))).all().item<bool>());
}

TEST_P(RouterContractTest, NormalizesWhenTheModelDoes) {
  RouterModel model = Model();
  const Routing plain = Make(model)->Route(0, Hidden(20, 100), TokenIds(20, 4));
  model.shape.norm_topk_prob = true;
  const Routing normalized = Make(model)->Route(0, Hidden(20, 100), TokenIds(20, 4));
  EXPECT_TRUE(SameBits(plain.experts, normalized.experts));
  EXPECT_TRUE(SameBits(plain.probabilities, normalized.probabilities));
  EXPECT_TRUE(
      at::allclose(normalized.weights, plain.weights / plain.weights.sum(1, true), 0.0, 1e-6));
}

TEST_P(RouterContractTest, RoutesNoRows) {
  const RouterModel model = Model();
  ExpectValid(Make(model)->Route(0, Hidden(0, 100), TokenIds(0, 4)), 0, model.shape);
}

TEST_P(RouterContractTest, RoutesToAllExpertsOrToTheOnlyOne) {
  for (const std::int64_t experts : {1, 6}) {
    const RouterModel model = Model(100, experts, experts);
    const Routing r = Make(model)->Route(0, Hidden(9, 100), TokenIds(9, 4));
    ExpectValid(r, 9, model.shape);
    EXPECT_TRUE(at::allclose(r.probabilities.sum(1), at::ones({9}), 0.0, 1e-6));
  }
}

TEST_P(RouterContractTest, MarksBadRowsAndLeavesTheOthersAlone) {
  const RouterModel model = Model();
  const auto router = Make(model);
  const at::Tensor good = Hidden(8, 100);
  const at::Tensor tokens = TokenIds(8, 4);
  const Routing expected = router->Route(0, good, tokens);
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    const at::Tensor hidden = good.clone();
    hidden[3].fill_(bad);
    const Routing got = router->Route(0, hidden, tokens);
    ExpectValid(got, 8, model.shape);
    const bool reads_hidden = dynamic_cast<const LogitRouter*>(router.get()) != nullptr;
    EXPECT_EQ(got.finite[3].item<bool>(), !reads_hidden);
    EXPECT_TRUE(at::isfinite(got.weights).all().item<bool>());
    EXPECT_TRUE(at::isfinite(got.probabilities).all().item<bool>());
    EXPECT_TRUE(SameBits(Rows(got, 0, 3), Rows(expected, 0, 3)));
    EXPECT_TRUE(SameBits(Rows(got, 4, 4), Rows(expected, 4, 4)));
  }
}

TEST_P(RouterContractTest, LayersDiffer) {
  const RouterModel model = Model();
  const auto router = Make(model);
  if (dynamic_cast<const LogitRouter*>(router.get()) == nullptr) {
    // A kind that does not look at the state may route alike in every layer.
    EXPECT_EQ(router->spec().FlopsPerToken(), 0);
    return;
  }
  const at::Tensor hidden = Hidden(5, 100);
  EXPECT_FALSE(SameBits(router->Route(0, hidden, TokenIds(5, 4)).probabilities,
                        router->Route(1, hidden, TokenIds(5, 4)).probabilities));
}

TEST_P(RouterContractTest, GradientsReachEveryLearnedTensorAndChangeNoBit) {
  const RouterModel model = Model();
  const RouterPackage package = sample::Package(kind(), model);
  const auto plain = *MakeRouter(package, model, {.dtype = dtype()});
  std::vector<RouterTensors> layers;
  for (const std::int64_t layer : model.shape.layers) {
    RouterTensors& tensors = layers.emplace_back();
    for (const TensorRule& rule : package.spec.Tensors()) {
      at::Tensor tensor = sample::TensorOf(package, RouterTensorName(layer, rule.name));
      if (!rule.is_int32()) tensor.requires_grad_(true);
      tensors[rule.name] = tensor;
    }
  }
  auto spec = RouterSpec::Create(sample::Kind(kind()), package.spec.hyper(), model.shape);
  const auto factory = RouterRegistry::Global().Factory(kind());
  const auto trained = (*factory)(*spec, layers, {.dtype = dtype()});
  const at::Tensor hidden = Hidden(11, 100);
  const at::Tensor tokens = TokenIds(11, 4);
  const Routing r = trained->Route(1, hidden, tokens);
  EXPECT_TRUE(SameBits(r, plain->Route(1, hidden, tokens)));
  (r.weights.square().sum() + r.probabilities.square().sum()).backward();
  for (const TensorRule& rule : package.spec.Tensors()) {
    if (rule.is_int32()) continue;
    const at::Tensor gradient = layers[1].at(rule.name).grad();
    ASSERT_TRUE(gradient.defined()) << rule.name;
    EXPECT_TRUE(at::isfinite(gradient).all().item<bool>()) << rule.name;
    EXPECT_GT(gradient.abs().max().item<float>(), 0.0f) << rule.name;
  }
}

INSTANTIATE_TEST_SUITE_P(EveryKind, RouterContractTest,
                         testing::Combine(testing::ValuesIn(sample::Kinds()),
                                          testing::Values(at::kFloat, at::kBFloat16, at::kHalf)),
                         [](const auto& info) {
                           return sample::Word(std::get<0>(info.param)) + "_" +
                                  c10::toString(std::get<1>(info.param));
                         });

class LogitContractTest : public RouterContractTest {};

TEST_P(LogitContractTest, ChoosesByLogitTiesToTheLowerId) {
  const RouterModel model = Model(100, 60);
  const auto router = Make(model);
  const auto* by_logits = dynamic_cast<const LogitRouter*>(router.get());
  if (by_logits == nullptr) {
    EXPECT_EQ(router->spec().FlopsPerToken(), 0) << "a kind without logits computes nothing";
    return;
  }
  const at::Tensor hidden = Hidden(200, 100);
  const at::Tensor z = by_logits->Logits(0, hidden);
  const Routing r = router->Route(0, hidden, TokenIds(200, 4));
  const at::Tensor order =
      std::get<1>(z.sort(/*stable=*/true, 1, /*descending=*/true)).narrow(1, 0, 4);
  EXPECT_TRUE(r.experts.equal(order.to(at::kInt)));
  EXPECT_TRUE(at::allclose(r.probabilities, at::softmax(z, 1), 1e-5, 1e-7));
}

INSTANTIATE_TEST_SUITE_P(EveryKind, LogitContractTest,
                         testing::Combine(testing::ValuesIn(sample::Kinds()),
                                          testing::Values(at::kFloat, at::kBFloat16)),
                         [](const auto& info) {
                           return sample::Word(std::get<0>(info.param)) + "_" +
                                  c10::toString(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace penstock
