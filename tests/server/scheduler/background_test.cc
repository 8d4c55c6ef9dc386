// Background sequences: they take what the others leave, and give it back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/scheduler/harness.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

SequenceSpec Background(Harness& harness, std::vector<TokenId> prompt) {
  SequenceSpec spec = harness.Spec(std::move(prompt), 0);
  spec.tenant = "the server itself";
  spec.output.prompt_logprobs = 0;
  spec.bypass_cache = spec.background = true;
  return spec;
}

int ScoresOf(const Harness& harness, SequenceId id) {
  int scores = 0;
  for (const SequenceEvent& event : harness.events) {
    if (event.id == id) scores += static_cast<int>(event.prompt_scores.size());
  }
  return scores;
}

TEST(BackgroundTest, ScoresItsPromptAloneInLargerPieces) {
  Scheduler::Options options = SmallOptions();
  options.background_rows = 1;
  Harness harness(options);
  const SequenceId id = harness.Add(Background(harness, Prompt(20)));
  EXPECT_EQ(harness.Step().rows(), 8);
  harness.StepUntilEnd(id);
  EXPECT_EQ(harness.Last(id).finish, FinishReason::kLength);
  EXPECT_EQ(ScoresOf(harness, id), 19) << "each once";
}

TEST(BackgroundTest, GetsAFewRowsBesideOthers) {
  Scheduler::Options options = SmallOptions();
  options.background_rows = 3;
  Harness harness(options);
  const SequenceId other = harness.Add(Prompt(6), 4);
  const SequenceId id = harness.Add(Background(harness, Prompt(20)));
  const StepPlan plan = harness.Step();
  EXPECT_THAT(IdsOf(plan), ElementsAre(other, id)) << "behind the others";
  EXPECT_EQ(plan.sequences[0].num_rows, 6);
  EXPECT_EQ(plan.sequences[1].num_rows, 3);
  EXPECT_EQ(plan.sequences[1].first_new_position, 3) << "none of them counts";
  EXPECT_EQ(harness.Step().rows(), 1 + 3);
}

TEST(BackgroundTest, WaitsWhileOthersWait) {
  Harness harness(SmallOptions());
  std::vector<SequenceId> others;
  const SequenceId id = harness.Add(Background(harness, Prompt(4)));
  for (int i = 0; i < 5; ++i) others.push_back(harness.Add(Prompt(8), 3));
  EXPECT_THAT(IdsOf(harness.Step()), ElementsAre(others[0], others[1], others[2], others[3]));
  EXPECT_EQ(harness.scheduler().Load().background, 1);
  EXPECT_EQ(harness.scheduler().Load().waiting, 1) << "the one that somebody waits for";
  harness.now += absl::Hours(1);  // and never grows more urgent
  harness.StepUntilEnd(others[4]);
  harness.StepUntilIdle();
  EXPECT_EQ(ScoresOf(harness, id), 3);
}

TEST(BackgroundTest, GivesItsPlaceToWhoeverComes) {
  Scheduler::Options options = SmallOptions();
  options.background_rows = 1;
  Harness harness(options);
  const SequenceId id = harness.Add(Background(harness, Prompt(30)));
  for (int i = 0; i < 3; ++i) harness.Add(Prompt(4), 6);
  harness.Step();
  const SequenceId late = harness.Add(Prompt(4), 6);
  const StepPlan plan = harness.Step();
  ASSERT_THAT(plan.sequences, SizeIs(4)) << "max_batch";
  EXPECT_EQ(plan.sequences[3].id, late);
  EXPECT_EQ(harness.scheduler().Load().running, 4);
  EXPECT_EQ(harness.scheduler().Load().preemptions, 0) << "nobody's request was";
  harness.StepUntilIdle();
  EXPECT_EQ(ScoresOf(harness, id), 29) << "each once";
}

TEST(BackgroundTest, GivesItsBlocksToWhoeverComes) {
  Scheduler::Options options = SmallOptions();
  options.num_blocks = 10;
  options.background_rows = 1;
  Harness harness(options);
  const SequenceId id = harness.Add(Background(harness, Prompt(24)));
  harness.Step();
  const SequenceId late = harness.Add(Prompt(20), 6);
  EXPECT_THAT(IdsOf(harness.Step()), ElementsAre(late));
  harness.StepUntilIdle();
  EXPECT_EQ(harness.Last(late).stats.preemptions, 0);
  EXPECT_GT(harness.Last(id).stats.preemptions, 0);
  EXPECT_EQ(ScoresOf(harness, id), 23);
}

TEST(BackgroundTest, AnswersOfOthersAreTheSameBesideIt) {
  const auto run = [](bool beside) {
    Scheduler::Options options = SmallOptions();
    options.num_blocks = 16;
    Harness harness(options);
    std::vector<SequenceId> ids;
    std::vector<std::vector<TokenId>> tokens;
    for (int i = 0; i < 6; ++i) {
      ids.push_back(harness.Add(Prompt(5 + i), 12));
      if (beside) harness.Add(Background(harness, Prompt(10 + 3 * i)));
    }
    harness.StepUntilIdle();
    for (const SequenceId id : ids) tokens.push_back(harness.Tokens(id));
    return tokens;
  };
  EXPECT_EQ(run(true), run(false));
}

TEST(BackgroundTest, IsCancelledLikeAnyOther) {
  Harness harness(SmallOptions());
  const SequenceId waiting = harness.Add(Background(harness, Prompt(40)));
  const SequenceId running = harness.Add(Background(harness, Prompt(40)));
  harness.Step();
  harness.scheduler().Cancel(waiting);
  harness.scheduler().Cancel(running);
  harness.Step();
  EXPECT_EQ(harness.Last(waiting).finish, FinishReason::kCancelled);
  EXPECT_EQ(harness.Last(running).finish, FinishReason::kCancelled);
  EXPECT_EQ(harness.scheduler().Load().background, 0);
  EXPECT_TRUE(harness.scheduler().Idle());
}

TEST(BackgroundTest, MayNotGenerate) {
  Harness harness(SmallOptions());
  SequenceSpec spec = Background(harness, Prompt(4));
  spec.stopping.max_new_tokens = 1;
  EXPECT_THAT(harness.scheduler().Enqueue(std::move(spec), harness.now).message(),
              HasSubstr("stopping.max_new_tokens: got 1"));
}

}  // namespace
}  // namespace penstock
