// What happens when blocks run out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/scheduler/harness.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

// Three blocks of 4: two sequences with a prompt of 4 hold one each, and both need a second one
// after four tokens.
Scheduler::Options TightOptions() {
  Scheduler::Options options = SmallOptions();
  options.num_blocks = 3;
  options.prefix_cache = false;
  return options;
}

TEST(PreemptionTest, PreemptsTheYoungestWhenBlocksRunOut) {
  Harness harness(TightOptions());
  const SequenceSpec old = harness.Spec(Prompt(4), 9), young = harness.Spec(Prompt(4, 200), 9);
  harness.Add(old);
  harness.Add(young);
  EXPECT_THAT(IdsOf(harness.Step()), ElementsAre(old.id, young.id));
  EXPECT_THAT(IdsOf(harness.Step()), ElementsAre(old.id))
      << "the third block goes to the older one";
  EXPECT_EQ(harness.scheduler().Load().preemptions, 1);
  EXPECT_EQ(harness.scheduler().Load().waiting, 1);
  harness.StepUntilIdle();
  EXPECT_EQ(harness.Tokens(old.id), RunAlone(old, Harness::kVocabulary).output);
  EXPECT_EQ(harness.Tokens(young.id), RunAlone(young, Harness::kVocabulary).output);
  EXPECT_EQ(harness.Last(old.id).stats.preemptions, 0);
  EXPECT_EQ(harness.Last(young.id).stats.preemptions, 1);
}

TEST(PreemptionTest, PreemptsTheLowestPriorityBeforeTheYoungest) {
  Harness harness(TightOptions());
  SequenceSpec low = harness.Spec(Prompt(4), 9), high = harness.Spec(Prompt(4, 200), 9);
  low.priority = 2;
  harness.Add(low);
  harness.Add(high);
  EXPECT_THAT(IdsOf(harness.Step()), ElementsAre(high.id, low.id));
  EXPECT_THAT(IdsOf(harness.Step()), ElementsAre(high.id));
  harness.StepUntilIdle();
  EXPECT_EQ(harness.Last(low.id).stats.preemptions, 1);
  EXPECT_EQ(harness.Tokens(low.id), RunAlone(low, Harness::kVocabulary).output);
}

TEST(PreemptionTest, TheOneThatNeedsABlockGivesUpItsOwnIfItIsTheYoungest) {
  Scheduler::Options options = TightOptions();
  Harness harness(options);
  const SequenceId old = harness.Add(Prompt(5), 3), young = harness.Add(Prompt(4, 200), 9);
  harness.Step();
  EXPECT_THAT(IdsOf(harness.Step()), ElementsAre(old));
  harness.StepUntilIdle();
  EXPECT_EQ(harness.Last(young).stats.preemptions, 1);
  EXPECT_THAT(harness.Tokens(young), SizeIs(9));
}

TEST(PreemptionTest, ComputesAgainWhatWasAnsweredAndMarksThoseRows) {
  Harness harness(TightOptions());
  const SequenceSpec old = harness.Spec(Prompt(4), 5), young = harness.Spec(Prompt(3, 200), 9);
  harness.Add(old);
  harness.Add(young);
  harness.Step();  // tokens 1
  harness.Step();  // old takes the third block; young goes on in its first, tokens 2
  EXPECT_EQ(harness.scheduler().Load().preemptions, 0);
  harness.Step();  // young needs a block and is preempted
  EXPECT_EQ(harness.scheduler().Load().preemptions, 1);
  const std::vector<TokenId> answered = harness.Tokens(young.id);
  ASSERT_THAT(answered, SizeIs(2));
  harness.StepUntilEnd(old.id);
  const StepPlan plan = harness.Step();
  ASSERT_THAT(IdsOf(plan), ElementsAre(young.id));
  // The prompt and two answered tokens: the last one's row is new.
  EXPECT_THAT(plan.token_ids, ElementsAre(200, 201, 202, answered[0], answered[1]));
  EXPECT_EQ(plan.decode_rows, 0);
  EXPECT_EQ(plan.sequences[0].first_new_position, 4);
  EXPECT_EQ(plan.sequences[0].num_output, 2);
  EXPECT_TRUE(plan.sequences[0].samples);
  harness.StepUntilIdle();
  EXPECT_EQ(harness.Tokens(young.id), RunAlone(young, Harness::kVocabulary).output);
}

TEST(PreemptionTest, GoesBackToTheFrontOfItsClass) {
  Harness harness(TightOptions());
  const SequenceId old = harness.Add(Prompt(4), 5), young = harness.Add(Prompt(4, 200), 9);
  harness.Step();
  const SequenceId later = harness.Add(Prompt(4, 300), 1);
  harness.Step();
  ASSERT_EQ(harness.scheduler().Load().preemptions, 1);
  harness.StepUntilEnd(old);
  EXPECT_THAT(IdsOf(harness.Step()), ElementsAre(young, later));
}

TEST(PreemptionTest, GivesScoresAndTracesOnce) {
  Harness harness(TightOptions());
  const SequenceId old = harness.Add(Prompt(4), 5);
  SequenceSpec young = harness.Spec(Prompt(4, 200), 4);
  young.output.prompt_logprobs = 0;
  young.output.prompt_trace = young.output.router_trace = true;
  harness.Add(young);
  harness.StepUntilIdle();
  EXPECT_TRUE(harness.Last(old).finish.has_value());
  EXPECT_EQ(harness.Last(young.id).stats.preemptions, 1);
  std::vector<TokenId> scored;
  std::vector<int> traced;
  for (const SequenceEvent& event : harness.events) {
    for (const ScoredToken& score : event.prompt_scores) scored.push_back(score.token.token);
    for (const RowTrace& trace : event.traces) traced.push_back(trace.position);
  }
  EXPECT_THAT(scored, ElementsAre(201, 202, 203));
  EXPECT_THAT(traced, ElementsAre(0, 1, 2, 3, 4, 5, 6));
}

TEST(PreemptionTest, KeepsTheTokenThatWasInFlight) {
  Scheduler::Options options = TightOptions();
  options.max_uncommitted = 2;
  Harness harness(options);
  const SequenceSpec old = harness.Spec(Prompt(4), 5), young = harness.Spec(Prompt(4, 200), 2);
  harness.Add(old);
  harness.Add(young);
  harness.Plan();
  EXPECT_THAT(IdsOf(harness.Plan()), ElementsAre(old.id));
  EXPECT_EQ(harness.scheduler().Load().preemptions, 1);
  const std::vector<SequenceEvent> events = harness.Commit();
  ASSERT_THAT(events, SizeIs(2));
  EXPECT_EQ(events[1].id, young.id);
  const std::vector<TokenId> alone = RunAlone(young, Harness::kVocabulary).output;
  EXPECT_EQ(events[1].tokens.at(0).token.token, alone[0]);
  harness.Commit();
  harness.StepUntilIdle();
  EXPECT_THAT(harness.Tokens(young.id), ElementsAre(alone[1]));
}

TEST(PreemptionTest, EndsAPreemptedSequenceWhoseLastTokenWasInFlight) {
  Scheduler::Options options = TightOptions();
  options.max_uncommitted = 2;
  Harness harness(options);
  const SequenceId old = harness.Add(Prompt(4), 5), young = harness.Add(Prompt(8, 200), 1);
  harness.Plan();
  EXPECT_THAT(IdsOf(harness.Plan()), ElementsAre(old));
  EXPECT_EQ(harness.scheduler().Load().waiting, 1);
  const std::vector<SequenceEvent> events = harness.Commit();
  EXPECT_EQ(events.at(1).id, young);
  EXPECT_EQ(events.at(1).finish, FinishReason::kLength);
  EXPECT_EQ(harness.scheduler().Load().waiting, 0);
  harness.Commit();
}

TEST(PreemptionTest, CachedBlocksAreGivenUpBeforeARunningSequence) {
  Scheduler::Options options = TightOptions();
  options.prefix_cache = true;
  Harness harness(options);
  harness.Add(Prompt(4, 300), 1);
  harness.StepUntilIdle();
  EXPECT_EQ(harness.scheduler().Load().blocks_cached, 1);
  harness.Add(Prompt(8), 4);
  harness.StepUntilIdle();
  EXPECT_EQ(harness.scheduler().Load().preemptions, 0);
}

TEST(PreemptionTest, EvenTheLowestPriorityEndsWhenItIsPreemptedAgainAndAgain) {
  Scheduler::Options options = TightOptions();
  options.priority_aging = absl::Seconds(1);
  Harness harness(options);
  SequenceSpec low = harness.Spec(Prompt(4), 9);
  low.priority = 0;
  harness.Add(low);
  for (int i = 0; !harness.Last(low.id).finish; ++i) {
    ASSERT_LT(i, 500);
    if (harness.scheduler().Load().waiting < 2) {
      SequenceSpec high = harness.Spec(Prompt(4, 200), 9);
      high.priority = 9;
      harness.Add(high);
    }
    harness.Step();
    harness.now += absl::Milliseconds(100);
  }
  EXPECT_GT(harness.Last(low.id).stats.preemptions, 0);
  EXPECT_EQ(harness.Tokens(low.id), RunAlone(low, Harness::kVocabulary).output);
}

}  // namespace
}  // namespace penstock
