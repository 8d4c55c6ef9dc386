// How the rows of a step are chosen: decode first, prompts in chunks, results read one step late.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/scheduler/harness.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// [rows] of each sequence of a plan.
std::vector<int> RowsOf(const StepPlan& plan) {
  std::vector<int> rows;
  for (const PlannedSequence& planned : plan.sequences) rows.push_back(planned.num_rows);
  return rows;
}

TEST(BatchingTest, ComputesAPromptInChunksAndSamplesFromItsLastRow) {
  Harness harness(SmallOptions());  // chunks of 16
  harness.Add(Prompt(35), 2);
  StepPlan plan = harness.Step();
  EXPECT_THAT(RowsOf(plan), ElementsAre(16));
  EXPECT_FALSE(plan.sequences[0].samples);
  EXPECT_THAT(plan.sequences[0].block_table, ::testing::SizeIs(4));
  plan = harness.Step();
  EXPECT_THAT(RowsOf(plan), ElementsAre(16));
  EXPECT_EQ(plan.sequences[0].first_position, 16);
  EXPECT_THAT(harness.events, IsEmpty());
  plan = harness.Step();
  EXPECT_THAT(RowsOf(plan), ElementsAre(3));
  EXPECT_TRUE(plan.sequences[0].samples);
  EXPECT_EQ(plan.decode_rows, 0);
  EXPECT_EQ(harness.Tokens(1).size(), 1u);
  plan = harness.Step();
  EXPECT_THAT(plan.positions, ElementsAre(35));
  EXPECT_EQ(plan.decode_rows, 1);
  EXPECT_EQ(plan.sequences[0].num_output, 1);
  EXPECT_EQ(harness.Last(1).finish, FinishReason::kLength);
}

TEST(BatchingTest, PutsDecodeRowsFirstAndFillsTheBudgetWithPrompts) {
  Scheduler::Options options = SmallOptions();
  options.token_budget = 10;
  Harness harness(options);
  const SequenceId first = harness.Add(Prompt(3), 20);
  harness.Step();
  const SequenceId second = harness.Add(Prompt(12, 200), 20),
                   third = harness.Add(Prompt(5, 300), 20);
  StepPlan plan = harness.Step();
  EXPECT_THAT(IdsOf(plan), ElementsAre(first, second));
  EXPECT_THAT(RowsOf(plan), ElementsAre(1, 9));
  EXPECT_EQ(plan.decode_rows, 1);
  plan = harness.Step();
  EXPECT_THAT(IdsOf(plan), ElementsAre(first, second, third));
  EXPECT_THAT(RowsOf(plan), ElementsAre(1, 3, 5));
  plan = harness.Step();
  EXPECT_THAT(RowsOf(plan), ElementsAre(1, 1, 1));
  EXPECT_EQ(plan.decode_rows, 3);
}

TEST(BatchingTest, RunsAtMostMaxBatchSequences) {
  Harness harness(SmallOptions());  // 4
  for (int i = 0; i < 6; ++i) harness.Add(Prompt(2, 100 * i), 2);
  EXPECT_THAT(IdsOf(harness.Step()), ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(harness.scheduler().Load().running, 4);
  EXPECT_EQ(harness.scheduler().Load().waiting, 2);
  EXPECT_THAT(IdsOf(harness.Step()), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(IdsOf(harness.Step()), ElementsAre(5, 6));
}

TEST(BatchingTest, AnswersAreThoseOfEachSequenceAlone) {
  Harness harness(SmallOptions());
  std::vector<SequenceSpec> specs;
  for (int i = 0; i < 8; ++i) {
    specs.push_back(harness.Spec(Prompt(3 + 7 * i, i), 3 + i));
    harness.Add(specs.back());
  }
  harness.StepUntilIdle();
  for (const SequenceSpec& spec : specs) {
    EXPECT_EQ(harness.Tokens(spec.id), RunAlone(spec, Harness::kVocabulary).output);
  }
}

TEST(PipeliningTest, PlansAStepWhoseTokensAreNotKnownYet) {
  Scheduler::Options options = SmallOptions();
  options.max_uncommitted = 2;
  Harness harness(options);
  harness.Add(Prompt(3), 3);
  EXPECT_THAT(harness.Plan().token_ids, ElementsAre(100, 101, 102));
  StepPlan plan = harness.Plan();
  EXPECT_THAT(plan.token_ids, ElementsAre(kTokenOfPreviousStep));
  EXPECT_THAT(plan.positions, ElementsAre(3));
  EXPECT_EQ(plan.sequences[0].num_output, 1);
  EXPECT_THAT(*plan.sequences[0].output, IsEmpty());
  EXPECT_EQ(harness.Plan().number, 0u) << "two plans are uncommitted";
  EXPECT_EQ(harness.Commit().at(0).tokens.size(), 1u);
  plan = harness.Plan();
  EXPECT_THAT(plan.token_ids, ElementsAre(kTokenOfPreviousStep));
  EXPECT_EQ(plan.sequences[0].output->size(), 1u);
  harness.Commit();
  EXPECT_EQ(harness.Plan().number, 0u) << "the third token is the last";
  EXPECT_EQ(harness.Commit().at(0).finish, FinishReason::kLength);
}

TEST(PipeliningTest, DropsTheRowOfASequenceThatStoppedMeanwhile) {
  Scheduler::Options options = SmallOptions();
  options.max_uncommitted = 2;
  Harness harness(options);
  SequenceSpec spec = harness.Spec(Prompt(3), 10);
  spec.stopping.stop_token_ids = {RunAlone(spec, Harness::kVocabulary).output[0]};
  harness.Add(spec);
  harness.Plan();
  ASSERT_THAT(IdsOf(harness.Plan()), ElementsAre(spec.id));
  EXPECT_EQ(harness.Commit().at(0).finish, FinishReason::kStop);
  EXPECT_EQ(harness.scheduler().Load().blocks_active, 0);
  EXPECT_TRUE(harness.scheduler().Idle());
  EXPECT_THAT(harness.Commit(), IsEmpty());
}

TEST(PipeliningTest, AnotherSequenceMayTakeTheBlocksAtOnce) {
  Scheduler::Options options = SmallOptions();
  options.max_uncommitted = 2;
  options.num_blocks = 3;
  Harness harness(options);
  SequenceSpec stops = harness.Spec(Prompt(6), 7);
  stops.stopping.stop_token_ids = {RunAlone(stops, Harness::kVocabulary).output[0]};
  harness.Add(stops);
  const SequenceSpec next = harness.Spec(Prompt(9, 200), 3);
  harness.Add(next);
  harness.Plan();
  harness.Plan();  // in flight, and about to be dropped
  harness.Commit();
  EXPECT_THAT(IdsOf(harness.Plan()), ElementsAre(next.id));
  harness.Commit();
  harness.Commit();
  harness.StepUntilIdle();
  EXPECT_EQ(harness.device().violations().size(), 0u);
}

TEST(PipeliningTest, TakesAnIdAgainWhileRowsOfItsFormerUseAreInFlight) {
  Scheduler::Options options = SmallOptions();
  options.max_uncommitted = 2;
  Harness harness(options);
  SequenceSpec spec = harness.Spec(Prompt(3), 10);
  harness.Add(spec);
  harness.Plan();
  harness.scheduler().Cancel(spec.id);
  harness.scheduler().TakeEvents();
  SequenceSpec again = harness.Spec(Prompt(5, 300), 2);
  again.id = spec.id;
  harness.Add(again);
  harness.Plan();
  EXPECT_THAT(harness.Commit(), IsEmpty());
  EXPECT_EQ(harness.Commit().at(0).tokens.at(0).token.token,
            RunAlone(again, Harness::kVocabulary).output[0]);
}

TEST(PipeliningDeathTest, DiesWhenStepsAreCommittedOutOfOrder) {
  Scheduler::Options options = SmallOptions();
  options.max_uncommitted = 2;
  Harness harness(options);
  harness.Add(Prompt(3), 10);
  harness.Plan();
  const StepPlan second = harness.Plan();
  EXPECT_DEATH(harness.scheduler().CommitStep(second, *harness.result_of_oldest(), harness.now),
               "in the order of their plans");
}

}  // namespace
}  // namespace penstock
