// Which tenant is next.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/scheduler/fair_share.h"
#include "tests/server/scheduler/harness.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;

TEST(FairShareTest, ChargesTokensOverTheTenantsWeight) {
  FairShare shares({{"heavy", 4}});
  TenantShare* const heavy = shares.Join("heavy");
  TenantShare* const other = shares.Join("other");
  shares.Charge(heavy, 100);
  shares.Charge(other, 100);
  EXPECT_EQ(heavy->served, 25);
  EXPECT_EQ(other->served, 100);
}

TEST(FairShareTest, LiftsATenantThatWasIdleToTheLowestOfTheActive) {
  FairShare shares({});
  TenantShare* const a = shares.Join("a");
  TenantShare* const b = shares.Join("b");
  shares.Charge(a, 100);
  shares.Charge(b, 70);
  EXPECT_EQ(shares.Join("c")->served, 70);
}

TEST(FairShareTest, LeavingPaysNoDebt) {
  FairShare shares({});
  TenantShare* a = shares.Join("a");
  shares.Join("b");
  shares.Charge(a, 100);
  shares.Leave(a);
  EXPECT_EQ(shares.Join("a")->served, 100);
}

TEST(FairShareTest, StartsAgainFromZeroWhenNobodyHasWork) {
  FairShare shares({});
  TenantShare* a = shares.Join("a");
  shares.Charge(a, 100);
  shares.Leave(a);
  EXPECT_EQ(shares.size(), 0);
  EXPECT_EQ(shares.Join("a")->served, 0);
}

TEST(FairShareTest, RemembersABoundedNumberOfIdleTenants) {
  FairShare shares({});
  TenantShare* const stays = shares.Join("stays");
  for (int i = 0; i < 3 * FairShare::kMaxIdle; ++i) {
    TenantShare* const passes = shares.Join(absl::StrCat("tenant", i));
    shares.Charge(passes, 10);
    shares.Leave(passes);
    ASSERT_LE(shares.size(), FairShare::kMaxIdle + 1);
  }
  EXPECT_EQ(stays->served, 0);
}

TEST(FairShareTest, NewWeightsCountFromThenOn) {
  FairShare shares({});
  TenantShare* const a = shares.Join("a");
  shares.Charge(a, 10);
  shares.SetWeights({{"a", 5}});
  shares.Charge(a, 10);
  EXPECT_EQ(a->served, 12);
}

// Keeps every tenant's queue filled, counts the tokens that each is served in `steps` steps.
std::map<std::string, int> Serve(Harness* harness, const std::map<std::string, int>& prompt_of,
                                 int steps) {
  std::map<std::string, int> served;
  std::map<std::string, int> waiting;
  std::map<SequenceId, std::string> tenants;
  for (int i = 0; i < steps; ++i) {
    for (const auto& [tenant, prompt] : prompt_of) {
      while (waiting[tenant] < 8) {
        SequenceSpec spec = harness->Spec(Prompt(prompt, 100), 4);
        spec.tenant = tenant;
        spec.bypass_cache = true;
        tenants[harness->Add(spec)] = tenant;
        ++waiting[tenant];
      }
    }
    harness->events.clear();
    harness->Step();
    for (const SequenceEvent& event : harness->events) {
      if (!event.finish) continue;
      const std::string& tenant = tenants.at(event.id);
      served[tenant] += prompt_of.at(tenant) + 2 * event.stats.output_tokens;
      --waiting[tenant];
    }
  }
  return served;
}

TEST(FairnessTest, TenantsGetEqualTokensWhateverTheLengthOfTheirRequests) {
  Harness harness(SmallOptions());
  const auto served = Serve(&harness, {{"short", 4}, {"long", 24}}, 600);
  EXPECT_NEAR(served.at("short"), served.at("long"), 0.1 * served.at("long"));
}

TEST(FairnessTest, TenantsGetTokensByTheirWeights) {
  Scheduler::Options options = SmallOptions();
  options.tenant_weights = {{"a", 3}};
  Harness harness(options);
  const auto served = Serve(&harness, {{"a", 8}, {"b", 8}}, 600);
  EXPECT_NEAR(served.at("a"), 3 * served.at("b"), 0.3 * served.at("b"));
}

TEST(FairnessTest, ANewTenantDoesNotWaitBehindAnothersBacklog) {
  Scheduler::Options options = SmallOptions();
  options.max_batch = 1;
  Harness harness(options);
  for (int i = 0; i < 10; ++i) harness.Add(Prompt(4, 100 + 10 * i), 1);
  harness.Step();
  SequenceSpec spec = harness.Spec(Prompt(4), 1);
  spec.tenant = "bolt";
  harness.Add(spec);
  // Its counter is lifted to that of the only active tenant: it follows the one that arrived before
  // it.
  EXPECT_THAT(IdsOf(harness.Step()), ElementsAre(2));
  EXPECT_THAT(IdsOf(harness.Step()), ElementsAre(spec.id));
}

TEST(FairnessTest, IdlenessEarnsNoCredit) {
  Scheduler::Options options = SmallOptions();
  options.max_batch = 1;
  Harness harness(options);
  for (int i = 0; i < 30; ++i) harness.Add(Prompt(4, 100 + 10 * i), 1);
  for (int i = 0; i < 10; ++i) harness.Step();
  for (int i = 0; i < 10; ++i) {
    SequenceSpec spec = harness.Spec(Prompt(4, 600 + 10 * i), 1);
    spec.tenant = "bolt";
    harness.Add(spec);
  }
  std::map<bool, int> steps;
  for (int i = 0; i < 10; ++i) ++steps[IdsOf(harness.Step()).at(0) > 30];
  EXPECT_EQ(steps[true], 5) << "they take turns";
}

TEST(FairnessTest, PromptTokensFromTheCacheCostNothing) {
  Scheduler::Options options = SmallOptions();
  options.max_batch = 1;
  Harness harness(options);
  const auto add = [&](const std::string& tenant, TokenId first) {
    SequenceSpec spec = harness.Spec(Prompt(17, first), 1);
    spec.tenant = tenant;
    return harness.Add(spec);
  };
  add("keeps", 0);  // has work to the end
  add("same", 100);
  add("other", 200);
  for (int i = 0; i < 3; ++i) {
    add("same", 100);
    add("other", 300 + 100 * i);
  }
  std::vector<SequenceId> order;
  harness.StepUntil([&] { return harness.scheduler().Idle(); });
  for (const SequenceEvent& event : harness.events) order.push_back(event.id);
  // After one full prompt each, the repeated ones (4, 6, 8) cost 3 where the others cost 19.
  EXPECT_THAT(order, ElementsAre(1, 2, 3, 4, 5, 6, 8, 7, 9));
}

TEST(FairnessTest, RefusesWeightsThatAreNotPositiveAndKeepsTheOldOnes) {
  Harness harness(SmallOptions());
  for (const double weight : {0.0, -1.0, std::numeric_limits<double>::infinity()}) {
    const absl::Status status = harness.scheduler().SetTenantWeights({{"acme", weight}});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), ::testing::StartsWith("tenant_weights[acme]: got "));
  }
  EXPECT_TRUE(harness.scheduler().SetTenantWeights({{"acme", 2}}).ok());
}

}  // namespace
}  // namespace penstock
