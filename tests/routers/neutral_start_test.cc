// A neutral start routes exactly as the checkpoint's gate: same experts, same weights, to the bit.
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "tests/routers/sample_routers.h"

namespace penstock {
namespace {

std::vector<std::string> NeutralKinds() {
  std::vector<std::string> names;
  for (const std::string& name : sample::Kinds()) {
    if (sample::Kind(name).has_neutral_start) names.push_back(name);
  }
  if (names.empty()) std::abort();
  return names;
}

class NeutralStartTest : public testing::TestWithParam<std::tuple<std::string, at::ScalarType>> {};

TEST_P(NeutralStartTest, RoutesAsTheCheckpointsGate) {
  const auto& [kind, dtype] = GetParam();
  for (const auto& [d, experts] : {std::pair{100, 13}, std::pair{2048, 60}}) {
    const RouterModel model = sample::Model(d, experts);
    const sample::Gates gates(model, dtype);
    RouterStart start{.model = model, .gates = gates.views, .seed = 5, .neutral = true};
    const auto package = InitRouter(sample::Kind(kind), start);
    ASSERT_TRUE(package.ok()) << package.status();
    const auto neutral = MakeRouter(*package, model, {.dtype = dtype});
    const auto checkpoint_package = CheckpointRouterPackage(model, gates.views);
    ASSERT_TRUE(checkpoint_package.ok()) << checkpoint_package.status();
    const auto checkpoint = MakeRouter(*checkpoint_package, model, {.dtype = dtype});
    ASSERT_TRUE(neutral.ok() && checkpoint.ok()) << neutral.status() << checkpoint.status();
    for (const std::int64_t rows : {1, 7, 400}) {
      const at::Tensor hidden = (sample::Normal({rows, d}, 8) * 3.0).to(dtype);
      const at::Tensor tokens = sample::TokenIds(rows, 4);
      for (int layer = 0; layer < 2; ++layer) {
        EXPECT_TRUE(sample::SameBits((*neutral)->Route(layer, hidden, tokens),
                                     (*checkpoint)->Route(layer, hidden, tokens)))
            << "d " << d << ", " << rows << " rows, layer " << layer;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryNeutralKind, NeutralStartTest,
                         testing::Combine(testing::ValuesIn(NeutralKinds()),
                                          testing::Values(at::kFloat, at::kBFloat16, at::kHalf)),
                         [](const auto& info) {
                           return sample::Word(std::get<0>(info.param)) + "_" +
                                  c10::toString(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace penstock
