#include "routers/router_loading.h"

#include <cmath>
#include <string>
#include <vector>

#include "ATen/ATen.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "routers/package/fingerprint.h"
#include "tests/routers/sample_routers.h"
#include "tests/support/temporary_folder.h"

namespace penstock {
namespace {

using testing::HasSubstr;

class RouterLoadingTest : public testing::TestWithParam<std::string> {};

TEST_P(RouterLoadingTest, RoutesFromDiskAsFromMemory) {
  const RouterModel model = sample::Model();
  const RouterPackage package = sample::Package(GetParam(), model);
  const TemporaryFolder home;
  const std::string folder = home / "package";
  ASSERT_TRUE(SaveRouterPackage(package, folder, /*replace=*/false).ok());
  const auto read = LoadRouterPackage(folder, RouterRegistry::Global().catalogue(), model);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(PackageFingerprint(*read), PackageFingerprint(package));
  const auto from_disk = MakeRouter(*read, model, {});
  const auto from_memory = MakeRouter(package, model, {});
  const at::Tensor hidden = sample::Normal({9, 100}, 1);
  EXPECT_TRUE(sample::SameBits((*from_disk)->Route(1, hidden, sample::TokenIds(9, 2)),
                               (*from_memory)->Route(1, hidden, sample::TokenIds(9, 2))));
}

TEST_P(RouterLoadingTest, SpecHasTheModelsShape) {
  RouterModel model = sample::Model();
  model.shape.norm_topk_prob = true;
  const auto router = sample::MakeSample(GetParam(), model);
  EXPECT_EQ(router->spec().name(), GetParam());
  EXPECT_TRUE(router->spec().shape().norm_topk_prob);
  EXPECT_EQ(router->spec().shape().vocab_size, 50);
}

TEST_P(RouterLoadingTest, RefusesAnotherModelAndDtype) {
  const RouterModel model = sample::Model();
  const RouterPackage package = sample::Package(GetParam(), model);
  RouterModel other = model;
  other.shape.layers = {0, 4};
  EXPECT_THAT(std::string(MakeRouter(package, other, {}).status().message()),
              HasSubstr("layers: got [0, 3], want [0, 4], the model's"));
  EXPECT_THAT(std::string(MakeRouter(package, model, {.dtype = at::kDouble}).status().message()),
              HasSubstr("dtype: got Double, want Float, BFloat16 or Half"));
}

INSTANTIATE_TEST_SUITE_P(EveryKind, RouterLoadingTest, testing::ValuesIn(sample::Kinds()),
                         [](const auto& info) { return sample::Word(info.param); });

TEST(CheckpointRouterTest, RoutesByTheCheckpointsGates) {
  const RouterModel model = sample::Model();
  const sample::Gates gates(model, at::kBFloat16);
  const auto package = CheckpointRouterPackage(model, gates.views);
  ASSERT_TRUE(package.ok()) << package.status();
  EXPECT_EQ(package->spec.name(), kCheckpointRouter);
  const auto router = MakeRouter(*package, model, {.dtype = at::kBFloat16});
  ASSERT_TRUE(router.ok()) << router.status();
  const at::Tensor hidden = sample::Normal({30, 100}, 1).to(at::kBFloat16);
  const at::Tensor exact =
      hidden.to(at::kDouble).matmul(gates.tensors[1].to(at::kDouble).t()).softmax(1);
  const Routing r = (*router)->Route(1, hidden, sample::TokenIds(30, 2));
  EXPECT_LT((r.probabilities.to(at::kDouble) - exact).abs().max().item<double>(), 0.01);
}

TEST(CheckpointRouterTest, NamesAGateThatHoldsNaN) {
  const RouterModel model = sample::Model();
  sample::Gates gates(model);
  gates.tensors[1][2][3] = std::nan("");
  EXPECT_THAT(std::string(CheckpointRouterPackage(model, gates.views).status().message()),
              HasSubstr("layers.3."));
}

}  // namespace
}  // namespace penstock
