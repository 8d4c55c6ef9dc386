#include "server/merged_replicas.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace penstock {
namespace {

using ::testing::HasSubstr;

AskedSnapshot Replica(const std::string& instance) {
  AskedSnapshot asked;
  asked.instance = instance;
  asked.question = {.metric = "latency", .better = Better::kLower, .min_effect = 0.05};
  asked.snapshot.experiment = "e";
  asked.snapshot.revision = "r";
  asked.snapshot.period = asked.snapshot.earliest_period = 1;
  for (const std::string arm : {"a", "b"}) {
    asked.snapshot.arms.emplace_back().name = arm;
    asked.snapshot.arms.back().share = 5000;
  }
  return asked;
}

TEST(MergedReplicasTest, OnHowManyAnArmIsHaltedAndWhyIsKeptOfEach) {
  MergedReplicas replicas;
  AskedSnapshot first = Replica("1"), second = Replica("2");
  first.halted = {{"b", "by operator, slow"}};
  second.halted = {{"a", "by guardrail, error_rate"}, {"b", "by peer, slow"}};
  ASSERT_TRUE(replicas.Add("h:1", first).ok());
  ASSERT_TRUE(replicas.Add("h:2", second).ok());
  ASSERT_TRUE(replicas.Add("h:3", Replica("3")).ok());
  const auto all = replicas.Finish();
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_EQ(all->snapshot.replicas, 3);
  ASSERT_EQ(all->halted.size(), 2u);
  EXPECT_EQ(all->halted[0].why, "on 1 of 3 replicas, on h:2 by guardrail, error_rate");
  EXPECT_EQ(all->halted[1].arm, "b");
  EXPECT_EQ(all->halted[1].why,
            "on 2 of 3 replicas, on h:1 by operator, slow; on h:2 by peer, slow");
}

TEST(MergedReplicasTest, OneServerIsAsItIs) {
  MergedReplicas replicas;
  AskedSnapshot first = Replica("1");
  first.halted = {{"b", "by operator, slow"}};
  ASSERT_TRUE(replicas.Add("h:1", first).ok());
  EXPECT_EQ(replicas.Finish()->halted.at(0).why, "by operator, slow");
  EXPECT_EQ(MergedReplicas().Finish().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(MergedReplicasTest, AServerCountsOnceWhateverItIsCalled) {
  MergedReplicas replicas;
  ASSERT_TRUE(replicas.Add("h:1", Replica("1")).ok());
  EXPECT_EQ(replicas.Add("other-name:1", Replica("1")).message(),
            "--server: got h:1 and other-name:1, want each replica once: both are the same server");
}

TEST(MergedReplicasTest, WhatOneReplicaMeasuresIsMeasured) {
  for (const bool second : {false, true}) {
    MergedReplicas replicas;
    AskedSnapshot one = Replica("1"), other = Replica("2");
    (second ? one : other).question.unmeasured = "no tenant allows it";
    ASSERT_TRUE(replicas.Add("h:1", one).ok());
    ASSERT_TRUE(replicas.Add("h:2", other).ok());
    EXPECT_EQ(replicas.Finish()->question.unmeasured, "");
  }
}

TEST(MergedReplicasTest, WhatDiffersIsNamedWithTheServers) {
  MergedReplicas replicas;
  ASSERT_TRUE(replicas.Add("h:1", Replica("1")).ok());
  AskedSnapshot other = Replica("2");
  other.question.metric = "ttft";
  EXPECT_EQ(replicas.Add("h:2", other).message(),
            "h:1 and h:2: cannot merge: primary is latency, lower is better, min_effect 0.05 on "
            "one server, ttft, lower is better, min_effect 0.05 on another");
  other = Replica("3");
  other.snapshot.revision = "x";
  EXPECT_THAT(std::string(replicas.Add("h:3", other).message()),
              HasSubstr("h:1 and h:3: cannot merge: revision is r on one server, x on another"));
}

}  // namespace
}  // namespace penstock
