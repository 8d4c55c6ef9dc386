// A router's program for the GPU decides as the router itself: through the program's CPU twin.
#include <cmath>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/route_rows.h"
#include "tests/routers/sample_routers.h"

namespace penstock {
namespace {

class RouterProgramTest : public testing::TestWithParam<std::string> {};

// Widths that no vector of the device fits, where a kind has widths.
Hyper OddHyper(const std::string& kind) {
  Hyper hyper;
  for (const HyperRule& rule : sample::Kind(kind).hyper) {
    if (rule.name == "hidden_width") hyper[rule.name] = std::int64_t{37};
    if (rule.name == "attention_width") hyper[rule.name] = std::int64_t{21};
    if (rule.name == "heads") hyper[rule.name] = std::int64_t{3};
  }
  return hyper;
}

void ExpectSameDecisions(const std::string& kind, const Hyper& hyper) {
  constexpr std::int64_t kRows = 40, kWidth = 96, kExperts = 13, kTop = 4;
  for (const bool normalize : {false, true}) {
    RouterModel model = sample::Model(kWidth, kExperts, kTop);
    model.shape.norm_topk_prob = normalize;
    const auto router = sample::MakeSample(kind, model, at::kBFloat16, hyper);
    const at::Tensor hidden = sample::Normal({kRows, kWidth}, 3).to(at::kBFloat16).contiguous();
    const at::Tensor tokens = sample::TokenIds(kRows, 4);
    std::vector<std::int32_t> token_ids(kRows);
    for (std::int64_t i = 0; i < kRows; ++i) {
      token_ids[static_cast<std::size_t>(i)] =
          static_cast<std::int32_t>(tokens.const_data_ptr<std::int64_t>()[i]);
    }
    for (int layer = 0; layer < 2; ++layer) {
      const std::optional<RouterProgram> program = router->Program(layer);
      ASSERT_TRUE(program.has_value());
      const std::int32_t rows = kRows;
      const std::vector<std::int32_t> routers(kRows, 0);
      const std::vector<std::uint8_t> counted(kRows, 1);
      std::vector<std::int32_t> ids(kRows * kTop), offsets(kExperts + 1), slots(kRows * kTop),
          failed(kRows, -1);
      std::vector<float> weights(kRows * kTop), shared(kRows);
      std::vector<std::uint64_t> expert_rows(kExperts);
      RouterCounters counters;
      RouteRowsArgs args;
      args.shape = {.max_rows = kRows,
                    .max_routers = 1,
                    .max_hidden = program->hidden,
                    .d = kWidth,
                    .experts = kExperts,
                    .k = kTop};
      args.num_rows = &rows;
      args.row_routers = routers.data();
      args.counted = counted.data();
      args.token_ids = token_ids.data();
      args.x = hidden.const_data_ptr();
      args.programs = &*program;
      args.normalize = normalize;
      args.expert_ids = ids.data();
      args.weights = weights.data();
      args.shared_gate_logits = shared.data();
      args.expert_offsets = offsets.data();
      args.slot_rows = slots.data();
      args.failed_layer = failed.data();
      args.expert_rows = expert_rows.data();
      args.counters = &counters;
      RouteRowsCpu(args);

      const Routing expected = router->Route(layer, hidden, tokens);
      const at::Tensor experts = expected.experts.contiguous(),
                       mass = expected.weights.contiguous();
      int same = 0;
      for (std::int64_t i = 0; i < kRows * kTop; ++i) {
        const auto at = static_cast<std::size_t>(i);
        if (ids[at] != experts.const_data_ptr<std::int32_t>()[i]) continue;
        ++same;
        EXPECT_NEAR(weights[at], mass.const_data_ptr<float>()[i], 2e-3) << i;
      }
      // Logits that a kind rounds to bf16 tie, or fall to either side of a rounding, now and then.
      EXPECT_GE(same, kRows * kTop * 97 / 100) << "layer " << layer;
      EXPECT_EQ(counters.rows, kRows);
      EXPECT_EQ(failed, std::vector<std::int32_t>(kRows, -1));
    }
  }
}

TEST_P(RouterProgramTest, DecidesAsTheRouterDoes) { ExpectSameDecisions(GetParam(), {}); }

TEST_P(RouterProgramTest, WidthsMayBeOdd) { ExpectSameDecisions(GetParam(), OddHyper(GetParam())); }

INSTANTIATE_TEST_SUITE_P(Kinds, RouterProgramTest, testing::ValuesIn(sample::Kinds()));

}  // namespace
}  // namespace penstock
