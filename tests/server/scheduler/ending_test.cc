// How sequences end, and what their events say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/scheduler/harness.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST(EndingTest, AStopTokenEndsTheAnswerAndIsNotPartOfIt) {
  Harness harness(SmallOptions());
  SequenceSpec spec = harness.Spec(Prompt(3), 10);
  const std::vector<TokenId> output = RunAlone(spec, Harness::kVocabulary).output;
  spec.stopping.stop_token_ids = {777, output[2]};
  harness.Add(spec);
  harness.StepUntilIdle();
  const SequenceEvent last = harness.Last(spec.id);
  EXPECT_THAT(harness.Tokens(spec.id), ElementsAre(output[0], output[1]));
  EXPECT_EQ(last.finish, FinishReason::kStop);
  EXPECT_EQ(last.stop_token, output[2]);
  EXPECT_THAT(last.tokens, IsEmpty());
  EXPECT_EQ(last.stats.output_tokens, 2);
}

TEST(EndingTest, TheLastTokenComesWithTheEndInOneEvent) {
  Harness harness(SmallOptions());
  const SequenceId id = harness.Add(Prompt(3), 2);
  harness.StepUntilIdle();
  ASSERT_THAT(harness.events, SizeIs(2));
  EXPECT_FALSE(harness.events[0].finish.has_value());
  EXPECT_THAT(harness.Last(id).tokens, SizeIs(1));
  EXPECT_EQ(harness.Last(id).finish, FinishReason::kLength);
  EXPECT_FALSE(harness.Last(id).stop_token.has_value());
}

TEST(EndingTest, WithoutNewTokensThePromptIsComputedAndNothingIsSampled) {
  Harness harness(SmallOptions());
  SequenceSpec spec = harness.Spec(Prompt(20), 0);
  spec.output.prompt_logprobs = 0;
  harness.Add(spec);
  EXPECT_FALSE(harness.Step().sequences[0].samples);
  EXPECT_FALSE(harness.Step().sequences[0].samples);
  ASSERT_THAT(harness.events, SizeIs(2));
  EXPECT_THAT(harness.events[0].prompt_scores, SizeIs(16));
  EXPECT_THAT(harness.events[1].prompt_scores, SizeIs(3));
  EXPECT_EQ(harness.events[1].finish, FinishReason::kLength);
  EXPECT_EQ(harness.events[1].stats.output_tokens, 0);
  EXPECT_EQ(harness.events[1].stats.first_token, absl::InfiniteDuration());
}

TEST(EndingTest, ACancelledSequenceIsInNoLaterPlanAndItsBlocksAreFreeAtOnce) {
  Scheduler::Options options = SmallOptions();
  options.prefix_cache = false;
  Harness harness(options);
  const SequenceId cancelled = harness.Add(Prompt(9), 10), other = harness.Add(Prompt(3, 200), 10);
  harness.Step();
  harness.events.clear();
  harness.scheduler().Cancel(cancelled);
  EXPECT_EQ(harness.scheduler().Load().blocks_active, 1);
  EXPECT_THAT(IdsOf(harness.Step()), ElementsAre(other));
  EXPECT_EQ(harness.Last(cancelled).finish, FinishReason::kCancelled);
  EXPECT_EQ(harness.Last(cancelled).stats.output_tokens, 1);
}

TEST(EndingTest, CancelPassesOnTheReasonThatItIsGiven) {
  Harness harness(SmallOptions());
  const SequenceId id = harness.Add(Prompt(3), 10);
  harness.Step();
  harness.scheduler().Cancel(id, FinishReason::kStop);
  const std::vector<SequenceEvent> events = harness.scheduler().TakeEvents();
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].finish, FinishReason::kStop);
  EXPECT_FALSE(events[0].stop_token.has_value());
}

TEST(EndingTest, CancellingAnUnknownOrEndedSequenceDoesNothing) {
  Harness harness(SmallOptions());
  const SequenceId id = harness.Add(Prompt(3), 10);
  harness.scheduler().Cancel(99);
  harness.scheduler().Cancel(id);
  harness.scheduler().Cancel(id);
  EXPECT_THAT(harness.scheduler().TakeEvents(), SizeIs(1));
}

TEST(EndingTest, CancelsASequenceThatStillWaits) {
  Scheduler::Options options = SmallOptions();
  options.max_batch = 1;
  Harness harness(options);
  const SequenceId running = harness.Add(Prompt(3), 10), waiting = harness.Add(Prompt(3, 200), 10);
  harness.Step();
  harness.scheduler().Cancel(waiting);
  EXPECT_EQ(harness.scheduler().Load().waiting, 0);
  EXPECT_THAT(IdsOf(harness.Step()), ElementsAre(running));
  EXPECT_EQ(harness.Last(waiting).stats.admitted, absl::InfiniteDuration());
}

TEST(EndingTest, WorkPastItsDeadlineGetsIntoNoPlan) {
  Scheduler::Options options = SmallOptions();
  options.max_batch = 1;
  Harness harness(options);
  SequenceSpec runs = harness.Spec(Prompt(3), 50), waits = harness.Spec(Prompt(3, 200), 50);
  runs.deadline = harness.now + absl::Seconds(2);
  waits.deadline = harness.now + absl::Seconds(1);
  harness.Add(runs);
  harness.Add(waits);
  harness.Step();
  harness.now += absl::Seconds(1);
  EXPECT_THAT(IdsOf(harness.Step()), ElementsAre(runs.id));
  EXPECT_EQ(harness.Last(waits.id).finish, FinishReason::kDeadline);
  EXPECT_FALSE(harness.Last(runs.id).finish.has_value());
  harness.now += absl::Seconds(1);
  EXPECT_EQ(harness.Step().number, 0u);
  EXPECT_EQ(harness.Last(runs.id).finish, FinishReason::kDeadline);
  EXPECT_THAT(harness.Tokens(runs.id), SizeIs(2));
}

TEST(EndingTest, AnErrorEndsItsSequenceAlone) {
  Harness harness(SmallOptions());
  const SequenceId fails = harness.Add(Prompt(3), 3), lives = harness.Add(Prompt(3, 200), 3);
  harness.Plan();
  harness.result_of_oldest()->sequences[0] = SequenceResult();
  harness.result_of_oldest()->sequences[0].status = absl::InternalError("layer 3: not finite");
  const std::vector<SequenceEvent> events = harness.Commit();
  ASSERT_THAT(events, SizeIs(2));
  EXPECT_EQ(events[0].id, fails);
  EXPECT_EQ(events[0].finish, FinishReason::kError);
  EXPECT_EQ(events[0].error.message(), "layer 3: not finite");
  EXPECT_EQ(events[1].id, lives);
  harness.StepUntilIdle();
  EXPECT_EQ(harness.Last(lives).finish, FinishReason::kLength);
}

TEST(EndingTest, RowsOfAFailedStepAreNotCached) {
  Harness harness(SmallOptions());
  harness.Add(Prompt(9), 3);
  harness.Plan();
  harness.result_of_oldest()->sequences[0] = SequenceResult();
  harness.result_of_oldest()->sequences[0].status = absl::InternalError("lost");
  harness.Commit();
  EXPECT_EQ(harness.scheduler().Load().blocks_cached, 0);
  EXPECT_EQ(harness.scheduler().Load().blocks_free, 64);
}

TEST(EndingTest, StatsTellHowTimeAndTokensWereSpent) {
  Scheduler::Options options = SmallOptions();
  options.max_batch = 1;
  Harness harness(options);
  harness.Add(Prompt(8), 1);
  const SequenceId id = harness.Add(Prompt(10), 2);  // begins as the first does
  harness.Step();
  const absl::Duration start = harness.now;
  harness.now += absl::Seconds(1);
  harness.Plan();
  harness.now += absl::Seconds(2);
  harness.Commit();
  harness.now += absl::Seconds(4);
  harness.StepUntilIdle();
  const SequenceStats stats = harness.Last(id).stats;
  EXPECT_EQ(stats.prompt_tokens, 10);
  EXPECT_EQ(stats.cached_prompt_tokens, 8);
  EXPECT_EQ(stats.output_tokens, 2);
  EXPECT_EQ(stats.preemptions, 0);
  EXPECT_EQ(stats.enqueued, start);
  EXPECT_EQ(stats.admitted, start + absl::Seconds(1));
  EXPECT_EQ(stats.first_token, start + absl::Seconds(3));
  EXPECT_EQ(stats.finished, start + absl::Seconds(7));
}

TEST(EndingTest, EventsOfAStepComeInThePlansOrder) {
  Harness harness(SmallOptions());
  for (int i = 0; i < 4; ++i) harness.Add(Prompt(3, 100 * i), 1);
  const std::vector<SequenceId> planned = IdsOf(harness.Step());
  std::vector<SequenceId> ended;
  for (const SequenceEvent& event : harness.events) ended.push_back(event.id);
  EXPECT_THAT(ended, ElementsAreArray(planned));
}

}  // namespace
}  // namespace penstock
