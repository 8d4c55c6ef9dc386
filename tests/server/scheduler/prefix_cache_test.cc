// What the scheduler takes from the prefix index, and what it adds to it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "tests/server/scheduler/harness.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

int CachedTokens(Harness* harness, const SequenceSpec& spec) {
  harness->Add(spec);
  harness->StepUntilIdle();
  return harness->Last(spec.id).stats.cached_prompt_tokens;
}

TEST(PrefixCacheTest, ReusesFullBlocksOfAnEarlierPrompt) {
  Harness harness(SmallOptions());
  EXPECT_EQ(CachedTokens(&harness, harness.Spec(Prompt(11), 1)), 0);
  std::vector<TokenId> prompt = Prompt(9);
  prompt.push_back(7);
  EXPECT_EQ(CachedTokens(&harness, harness.Spec(prompt, 1)), 8);
}

TEST(PrefixCacheTest, ComputesTheLastTokenOfAPromptThatIsCachedWhole) {
  Harness harness(SmallOptions());
  CachedTokens(&harness, harness.Spec(Prompt(8), 1));
  const SequenceSpec again = harness.Spec(Prompt(8), 3);
  harness.Add(again);
  const StepPlan plan = harness.Step();
  EXPECT_THAT(plan.positions, ElementsAre(4, 5, 6, 7));
  EXPECT_EQ(plan.decode_rows, 0);
  harness.StepUntilIdle();
  EXPECT_EQ(harness.Tokens(again.id), RunAlone(again, Harness::kVocabulary).output);
}

TEST(PrefixCacheTest, FindsTheAnswerOfTheTurnBefore) {
  Harness harness(SmallOptions());
  const SequenceSpec first = harness.Spec(Prompt(6), 7);
  CachedTokens(&harness, first);
  std::vector<TokenId> prompt = first.prompt;
  for (const TokenId token : harness.Tokens(first.id)) prompt.push_back(token);
  for (const TokenId token : Prompt(5, 300)) prompt.push_back(token);
  // 6 + 7 tokens, the last of which had no row: three full blocks.
  EXPECT_EQ(CachedTokens(&harness, harness.Spec(prompt, 1)), 12);
}

TEST(PrefixCacheTest, SharesBlocksWithASequenceThatStillRuns) {
  Harness harness(SmallOptions());
  const SequenceId first = harness.Add(Prompt(9), 20);
  harness.Step();
  const SequenceId second = harness.Add(Prompt(9), 20);
  const StepPlan plan = harness.Step();
  ASSERT_THAT(IdsOf(plan), ElementsAre(first, second));
  EXPECT_EQ(plan.sequences[1].first_position, 8);
  EXPECT_EQ(plan.sequences[0].block_table[1], plan.sequences[1].block_table[1]);
  EXPECT_NE(plan.sequences[0].block_table[2], plan.sequences[1].block_table[2]);
  EXPECT_EQ(harness.scheduler().Load().blocks_active, 4);
}

TEST(PrefixCacheTest, OffersRowsOnlyOnceTheyAreCommitted) {
  Scheduler::Options options = SmallOptions();
  options.max_uncommitted = 2;
  Harness harness(options);
  harness.Add(Prompt(9), 20);
  harness.Plan();
  harness.Add(Prompt(9), 20);
  EXPECT_EQ(harness.Plan().sequences.at(1).first_position, 0);
  harness.Commit();
  harness.Add(Prompt(9), 20);
  EXPECT_EQ(harness.Plan().sequences.at(2).first_position, 8);
}

struct Stranger {
  std::string name;
  std::function<void(SequenceSpec*)> change;
};

class PrefixCacheScopeTest : public ::testing::TestWithParam<Stranger> {};

TEST_P(PrefixCacheScopeTest, ReadsNothingOfTheOther) {
  Harness harness(SmallOptions());
  CachedTokens(&harness, harness.Spec(Prompt(12), 1));
  SequenceSpec other = harness.Spec(Prompt(12), 1);
  GetParam().change(&other);
  EXPECT_EQ(CachedTokens(&harness, other), 0);
}

INSTANTIATE_TEST_SUITE_P(
    AnotherOr, PrefixCacheScopeTest,
    ::testing::Values(
        Stranger{"router", [](SequenceSpec* s) { s->router = MakeRouter("mlp"); }},
        Stranger{"tenant", [](SequenceSpec* s) { s->tenant = "bolt"; }},
        Stranger{"salt", [](SequenceSpec* s) { s->cache_salt = "s"; }},
        Stranger{"bypass", [](SequenceSpec* s) { s->bypass_cache = true; }},
        Stranger{"prompt_logprobs", [](SequenceSpec* s) { s->output.prompt_logprobs = 0; }},
        Stranger{"prompt_trace", [](SequenceSpec* s) { s->output.prompt_trace = true; }}),
    [](const auto& info) { return info.param.name; });

TEST(PrefixCacheTest, TenantsShareWhenConfigured) {
  Scheduler::Options options = SmallOptions();
  options.share_cache_across_tenants = true;
  Harness harness(options);
  CachedTokens(&harness, harness.Spec(Prompt(12), 1));
  SequenceSpec other = harness.Spec(Prompt(12), 1);
  other.tenant = "bolt";
  EXPECT_EQ(CachedTokens(&harness, other), 8);
}

TEST(PrefixCacheTest, ARouterOfTheSamePackageUnderAnotherNameShares) {
  Harness harness(SmallOptions());
  CachedTokens(&harness, harness.Spec(Prompt(12), 1));
  SequenceSpec other = harness.Spec(Prompt(12), 1);
  auto renamed = std::make_shared<LoadedRouter>(*other.router);
  renamed->name = "linear-v1";
  other.router = renamed;
  EXPECT_EQ(CachedTokens(&harness, other), 8);
}

TEST(PrefixCacheTest, ASequenceThatBypassesTheCacheLeavesNothing) {
  Harness harness(SmallOptions());
  SequenceSpec spec = harness.Spec(Prompt(12), 5);
  spec.bypass_cache = true;
  CachedTokens(&harness, spec);
  EXPECT_EQ(harness.scheduler().Load().blocks_cached, 0);
  EXPECT_EQ(CachedTokens(&harness, harness.Spec(Prompt(12), 1)), 0);
}

TEST(PrefixCacheTest, ScoredPromptsAreCachedForOthers) {
  Harness harness(SmallOptions());
  SequenceSpec scored = harness.Spec(Prompt(12), 1);
  scored.output.prompt_logprobs = 0;
  CachedTokens(&harness, scored);
  EXPECT_EQ(CachedTokens(&harness, harness.Spec(Prompt(12), 1)), 8);
}

TEST(PrefixCacheTest, IsOffWhenConfigured) {
  Scheduler::Options options = SmallOptions();
  options.prefix_cache = false;
  Harness harness(options);
  CachedTokens(&harness, harness.Spec(Prompt(12), 1));
  EXPECT_EQ(CachedTokens(&harness, harness.Spec(Prompt(12), 1)), 0);
  EXPECT_EQ(harness.scheduler().Load().blocks_free, 64);
}

TEST(PrefixCacheTest, APreemptedSequenceFindsItsOwnBlocksAgain) {
  Scheduler::Options options = SmallOptions();
  options.num_blocks = 6;
  Harness harness(options);
  const SequenceId old = harness.Add(Prompt(4), 9), young = harness.Add(Prompt(13, 200), 9);
  harness.StepUntil([&] { return harness.scheduler().Load().preemptions == 1; });
  harness.StepUntilEnd(old);
  const StepPlan plan = harness.Step();
  ASSERT_THAT(IdsOf(plan), ElementsAre(young));
  // Of its four full blocks the older one needed the last.
  EXPECT_EQ(plan.sequences[0].first_position, 12);
  harness.StepUntilIdle();
  EXPECT_EQ(harness.Last(young).stats.cached_prompt_tokens, 0) << "its own rows are no hit";
  EXPECT_THAT(harness.Tokens(young), SizeIs(9));
}

}  // namespace
}  // namespace penstock
