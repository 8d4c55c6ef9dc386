#include "server/model/cuda/step/step_writer.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "routers/router.h"
#include "routers/routing.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class FakeRouter final : public Router {
 public:
  const RouterSpec& spec() const override { std::abort(); }
  Routing Route(int, const at::Tensor&, const at::Tensor&) const override { std::abort(); }
  std::optional<RouterProgram> Program(int layer) const override {
    RouterProgram program;
    program.hidden = 8 * (layer + 1);
    return program;
  }
};

std::shared_ptr<const LoadedRouter> MakeRouter(const std::string& name) {
  LoadedRouter router;
  router.name = name;
  router.router = std::make_shared<const FakeRouter>();
  return std::make_shared<const LoadedRouter>(std::move(router));
}

StepPlan PlanOf(std::uint64_t number) {
  StepPlan plan;
  plan.number = number;
  return plan;
}

class StepWriterTest : public ::testing::Test {
 protected:
  static constexpr int kRows = 64, kBlocks = 8, kSlots = 3;

  StepWriterTest() {
    StepBounds bounds{.rows = kRows, .decode_rows = kRows, .logit_rows = kRows};
    Carver measure(nullptr);
    StepInputs::Lay(bounds, measure);
    memory_.resize(static_cast<std::size_t>(measure.used()) + 4 * kRows * kBlocks + Carver::kAlign);
    void* start = memory_.data();
    std::size_t space = memory_.size();
    std::align(Carver::kAlign, static_cast<std::size_t>(measure.used()), start, space);
    Carver carver(static_cast<std::byte*>(start));
    target_ = {.inputs = StepInputs::Lay(bounds, carver),
               .bias_tokens = bias_tokens_.data(),
               .biases = biases_.data(),
               .banned = banned_.data()};
  }

  // Adds a sequence's rows to the plan.
  PlannedSequence& Add(StepPlan& plan, SequenceId id, int first_position,
                       std::vector<TokenId> tokens, const std::shared_ptr<SequenceSpec>& spec) {
    PlannedSequence& planned = plan.sequences.emplace_back();
    planned.id = id;
    planned.spec = spec;
    planned.first_row = plan.rows();
    planned.num_rows = static_cast<int>(tokens.size());
    planned.first_position = first_position;
    for (int p = 0; p <= first_position + planned.num_rows - 1; p += 16)
      planned.block_table.push_back(10 * static_cast<int>(id) + p / 16);
    for (const TokenId token : tokens) {
      plan.positions.push_back(first_position++);
      plan.token_ids.push_back(token);
    }
    return planned;
  }

  std::shared_ptr<SequenceSpec> Spec(std::vector<TokenId> prompt) {
    auto spec = std::make_shared<SequenceSpec>();
    spec->prompt = std::move(prompt);
    spec->router = router_;
    return spec;
  }

  WrittenStep Write(const StepPlan& plan) {
    return writer_.Write(plan, writer_.LogitRows(plan), target_);
  }

  template <typename T>
  static std::vector<T> First(const T* values, std::size_t count) {
    return {values, values + count};
  }

  std::vector<std::byte> memory_;
  std::vector<std::int32_t> bias_tokens_ = std::vector<std::int32_t>(8),
                            banned_ = std::vector<std::int32_t>(8);
  std::vector<float> biases_ = std::vector<float>(8);
  StepTarget target_;
  std::shared_ptr<const LoadedRouter> router_ = MakeRouter("a");
  RouterSlots routers_{/*layers=*/2, kSlots};
  StepWriter writer_{{.vocab_size = 100,
                      .block_tokens = 16,
                      .max_context = 128,
                      .max_sequences = 4,
                      .max_top = 5,
                      .max_token_lists = 8,
                      .num_blocks = 100},
                     &routers_};
};

TEST_F(StepWriterTest, RowsCarryTokensPositionsAndTables) {
  StepPlan plan = PlanOf(1);
  Add(plan, 1, 30, {7}, Spec({1, 2, 3})).samples = true;
  Add(plan, 2, 0, {4, 5}, Spec({4, 5, 6}));
  plan.decode_rows = 1;
  const WrittenStep step = Write(plan);
  EXPECT_THAT(First(target_.inputs.counts, 5), ElementsAre(3, 1, 2, 2, 1))
      << "rows, decode rows, sequences, width, logits";
  EXPECT_THAT(First(target_.inputs.tokens, 3), ElementsAre(7, 4, 5));
  EXPECT_THAT(First(target_.inputs.positions, 3), ElementsAre(30, 0, 1));
  EXPECT_THAT(First(target_.inputs.sequences, 3), ElementsAre(0, 1, 1));
  EXPECT_EQ(step.table_entries, 4);
  EXPECT_THAT(First(target_.inputs.block_tables, 4), ElementsAre(10, 11, 20, 0));
  EXPECT_THAT(First(target_.inputs.logit_rows, 1), ElementsAre(0));
  ASSERT_THAT(step.routers, SizeIs(1));
  EXPECT_EQ(step.routers[0].counted_rows, 3);
}

TEST_F(StepWriterTest, APendingTokenNamesTheLogitRowThatDrawsIt) {
  StepPlan first = PlanOf(1);
  const auto a = Spec({1}), b = Spec({2});
  Add(first, 1, 0, {1}, a).samples = true;
  Add(first, 2, 0, {2}, b).samples = true;
  Write(first);
  StepPlan second = PlanOf(2);
  Add(second, 2, 1, {kTokenOfPreviousStep}, b).samples = true;
  Add(second, 1, 1, {kTokenOfPreviousStep}, a).samples = true;
  Write(second);
  EXPECT_THAT(First(target_.inputs.tokens, 2), ElementsAre(-2, -1));
}

TEST_F(StepWriterTest, ScoresOfAPromptAreLogitRowsOfTheirOwn) {
  const auto spec = Spec({1, 2, 3, 4});
  spec->output.prompt_logprobs = 2;
  spec->output.logprobs = 9;
  StepPlan plan = PlanOf(1);
  Add(plan, 1, 1, {2, 3, 4}, spec).samples = true;
  const WrittenStep step = Write(plan);
  ASSERT_THAT(step.logit_rows, SizeIs(3));
  EXPECT_EQ(target_.inputs.samples[0].given_token, 3);
  EXPECT_EQ(target_.inputs.samples[0].num_top, 2);
  EXPECT_EQ(target_.inputs.samples[1].given_token, 4);
  EXPECT_EQ(target_.inputs.samples[2].given_token, -1);
  EXPECT_EQ(target_.inputs.samples[2].num_top, 5) << "bounded by max_top";
  EXPECT_TRUE(step.wants_top);
}

TEST_F(StepWriterTest, BiasesAddUpAndBansHoldUntilTheMinimum) {
  const auto spec = Spec({1});
  spec->sampling.logit_bias = {{5, 1.5f}, {3, 2}, {5, 1}};
  spec->stopping.stop_token_ids = {8, 9};
  spec->stopping.min_new_tokens = 2;
  StepPlan plan = PlanOf(1);
  PlannedSequence& planned = Add(plan, 1, 3, {1}, spec);
  planned.samples = true;
  planned.num_output = 1;
  EXPECT_EQ(Write(plan).list_entries, 2);
  EXPECT_EQ(target_.inputs.samples[0].num_biases, 2);
  EXPECT_THAT(First(bias_tokens_.data(), 2), ElementsAre(3, 5));
  EXPECT_THAT(First(biases_.data(), 2), ElementsAre(2, 2.5f));
  EXPECT_EQ(target_.inputs.samples[0].num_banned, 2);
  plan.sequences[0].num_output = 2;
  Write(plan);
  EXPECT_EQ(target_.inputs.samples[0].num_banned, 0);
}

TEST_F(StepWriterTest, ListsThatOverflowFailTheirSequenceAlone) {
  const auto greedy = Spec({1}), spec = Spec({1});
  for (int i = 0; i < 9; ++i) spec->sampling.logit_bias.emplace_back(i, 1);
  StepPlan plan = PlanOf(1);
  Add(plan, 1, 0, {1}, spec).samples = true;
  Add(plan, 2, 0, {1}, greedy).samples = true;
  const WrittenStep step = Write(plan);
  EXPECT_EQ(step.status[0].code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(step.status[1].ok());
}

TEST_F(StepWriterTest, AHistoryIsSentOnceAndAgainAfterAPause) {
  const auto spec = Spec({1, 2});
  spec->sampling.repetition_penalty = 1.1;
  const std::vector<TokenId> none, output = {6, 7};
  const auto step_of = [&](std::uint64_t number, const std::vector<TokenId>& tokens) {
    StepPlan plan = PlanOf(number);
    PlannedSequence& planned = Add(plan, 1, 1, {2}, spec);
    planned.samples = true;
    planned.output = &tokens;
    planned.num_output = static_cast<int>(tokens.size());
    return Write(plan);
  };
  const WrittenStep first = step_of(1, none);
  ASSERT_THAT(first.histories, SizeIs(1));
  EXPECT_THAT(first.histories[0].second, ElementsAre(1, 2));
  EXPECT_GE(target_.inputs.samples[0].history, 0);
  EXPECT_EQ(target_.inputs.samples[0].num_prompt, 2);
  EXPECT_THAT(step_of(2, none).histories, IsEmpty());
  StepPlan other = PlanOf(3);
  Add(other, 2, 0, {1}, Spec({1}));
  Write(other);
  const WrittenStep again = step_of(4, output);
  ASSERT_THAT(again.histories, SizeIs(1));
  EXPECT_THAT(again.histories[0].second, ElementsAre(1, 2, 6, 7));
}

TEST_F(StepWriterTest, RecomputedRowsAreNotCounted) {
  StepPlan plan = PlanOf(1);
  Add(plan, 1, 0, {1, 2, 3}, Spec({1, 2, 3})).first_new_position = 2;
  const WrittenStep step = Write(plan);
  EXPECT_THAT(First(target_.inputs.counted, 3), ElementsAre(0, 0, 1));
  EXPECT_EQ(step.routers[0].counted_rows, 1);
}

TEST(RouterSlotsTest, AProgramPerLayerIsWrittenOnceAndASlotIsReused) {
  RouterSlots slots(/*layers=*/2, /*slots=*/2);
  EXPECT_TRUE(slots.TakeChanged());
  auto a = MakeRouter("a"), b = MakeRouter("b"), c = MakeRouter("c");
  EXPECT_EQ(slots.Hold(a, 1), 0);
  EXPECT_TRUE(slots.TakeChanged());
  EXPECT_EQ(slots.programs()[0].hidden, 8);
  EXPECT_EQ(slots.programs()[2].hidden, 16);
  EXPECT_EQ(slots.Hold(a, 1), 0);
  EXPECT_FALSE(slots.TakeChanged());
  EXPECT_EQ(slots.Hold(b, 2), 1);
  EXPECT_EQ(slots.Hold(c, 2), std::nullopt) << "both are held by steps in flight";
  slots.Release(1);
  EXPECT_EQ(slots.Hold(c, 3), 0) << "a's slot: its last step is done";
  EXPECT_EQ(slots.router(0), c.get());
}

TEST(RouterSlotsTest, ARouterThatNobodyElseHoldsIsLetGo) {
  RouterSlots slots(1, 2);
  auto a = MakeRouter("a");
  const std::weak_ptr<const LoadedRouter> seen = a;
  slots.Hold(a, 1);
  a.reset();
  EXPECT_FALSE(seen.expired());
  slots.Release(1);
  EXPECT_TRUE(seen.expired());
}

}  // namespace
}  // namespace penstock
