#include "server/rpc/experiment_convert.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"

namespace penstock {
namespace {

using ::testing::HasSubstr;

AskedSnapshot SomeSnapshot(int units) {
  FakeClock clock;
  Ledger ledger({.clock = &clock});
  AnalysisPlan plan;
  plan.experiment.name = "e";
  plan.experiment.arms = {{"a", "linear", 5000}, {"b", "mlp", 5000}};
  plan.experiment.control = "a";
  plan.outcomes = {"click"};
  ledger.SetPlans({plan});
  for (int i = 0; i < units; ++i) {
    const std::string unit = absl::StrCat("u", i);
    const ExposedRequest request{.experiment = "e",
                                 .revision = "r",
                                 .arm = i % 2 == 0 ? "a" : "b",
                                 .tenant = "t",
                                 .unit = unit,
                                 .request_id = "r",
                                 .slice = {},
                                 .admitted = clock.Now()};
    ledger.OnAdmitted(request);
    RequestMeasures measures;
    measures.ok = true;
    measures.latency = absl::Seconds(1 + i % 5);
    ledger.OnPaired(request, "b", {.difference = -0.5, .tokens = 4});
    measures.awaits_text = true;
    ledger.OnFinished(request, measures);
    ledger.OnTextEnded(request, i % 3 == 0 ? std::nullopt : std::optional<std::int64_t>(4));
    clock.Advance(absl::Hours(1));
  }
  return {.snapshot = *ledger.Snapshot("e", "", true),
          .question = {.metric = "latency",
                       .better = Better::kLower,
                       .min_effect = 0.5,
                       .unmeasured = "nobody looks"},
          .halted = {{"b", "by an operator"}},
          .instance = "0123abcd"};
}

absl::StatusOr<AskedSnapshot> Travelled(const AskedSnapshot& asked, std::size_t per_message) {
  SnapshotMessages messages(asked, per_message);
  SnapshotReader reader;
  for (bool last = false; !last;) {
    v1::GetExperimentSnapshotResponse message;
    EXPECT_TRUE(message.ParseFromString(messages.Next().SerializeAsString()));
    if (absl::Status added = reader.Add(message); !added.ok()) return added;
    last = message.last();
  }
  return reader.Finish();
}

TEST(ExperimentConvertTest, ASnapshotTravelsWhole) {
  const AskedSnapshot asked = SomeSnapshot(100);
  for (const std::size_t per_message : {7, 100, 1000}) {
    const auto read = Travelled(asked, per_message);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->snapshot.units.size(), 100u);
    // Equal reports, to the last digit, are all that is asked of it.
    const auto text = [](const AskedSnapshot& from) {
      return ToProto(MakeReport(from.snapshot, from.question, from.halted, {})).DebugString();
    };
    EXPECT_EQ(text(*read), text(asked));
    EXPECT_EQ(read->snapshot.windows, asked.snapshot.windows);
    EXPECT_EQ(read->instance, asked.instance);
    EXPECT_EQ(read->question.unmeasured, "nobody looks");
    for (std::size_t arm = 0; arm < 2; ++arm) {
      EXPECT_EQ(read->snapshot.arms[arm].totals.texts.scored, 33);
      EXPECT_EQ(read->snapshot.arms[arm].totals.texts.dropped, 17);
      EXPECT_EQ(read->snapshot.arms[arm].totals.texts.tokens, 4 * 33);
      EXPECT_EQ(read->snapshot.arms[arm].entered.texts.Sums().sum_squares,
                asked.snapshot.arms[arm].entered.texts.Sums().sum_squares);
    }
    // And it merges as the original does.
    AskedSnapshot other = SomeSnapshot(50);
    EXPECT_EQ(Merge(read->snapshot, other.snapshot)->split_units, 50);
  }
  const auto empty = Travelled(SomeSnapshot(0), 10);
  ASSERT_TRUE(empty.ok()) << empty.status();
  EXPECT_TRUE(empty->snapshot.units.empty());
}

TEST(ExperimentConvertTest, WhatCannotBeIsRefusedByField) {
  const AskedSnapshot asked = SomeSnapshot(4);
  const auto refusal = [&](auto spoil) {
    v1::GetExperimentSnapshotResponse message = SnapshotMessages(asked).Next();
    spoil(&message);
    SnapshotReader reader;
    absl::Status status = reader.Add(message);
    if (status.ok()) status = reader.Finish().status();
    return std::string(status.message());
  };
  using M = v1::GetExperimentSnapshotResponse;
  EXPECT_THAT(refusal([](M* m) { m->set_last(false); }), HasSubstr("snapshot.last"));
  EXPECT_THAT(refusal([](M* m) { m->clear_header(); }), HasSubstr("snapshot.header"));
  EXPECT_THAT(refusal([](M* m) { m->mutable_header()->set_metrics(2, "x"); }),
              HasSubstr("snapshot.metrics[2]: got x, want ttft, as this version has it"));
  EXPECT_THAT(refusal([](M* m) { m->mutable_header()->mutable_arms(0)->add_sums(1); }),
              HasSubstr("snapshot.arms[a].sums: got 21 entries, want 20"));
  EXPECT_THAT(refusal([](M* m) { m->mutable_header()->mutable_arms(0)->clear_unique_units(); }),
              HasSubstr("registers"));
  EXPECT_THAT(
      refusal([](M* m) {
        m->mutable_header()->mutable_arms(1)->mutable_entered()->mutable_metrics(3)->set_moment_yy(
            -1);
      }),
      HasSubstr("snapshot.arms[b].entered.metrics[3]"));
  EXPECT_THAT(refusal([](M* m) { m->mutable_header()->mutable_primary()->set_min_effect(0); }),
              HasSubstr("snapshot.primary.min_effect"));
  EXPECT_THAT(refusal([](M* m) { m->mutable_header()->clear_outcome_window(); }),
              HasSubstr("snapshot.unit_window: got not all of"));
  EXPECT_THAT(refusal([](M* m) { m->mutable_units(0)->set_arm(2); }),
              HasSubstr("snapshot.units.arm: got 2"));
  EXPECT_THAT(refusal([](M* m) { m->mutable_units(0)->set_entered(8); }),
              HasSubstr("snapshot.units.entered: got 8"));
  EXPECT_THAT(refusal([](M* m) { m->mutable_header()->mutable_arms(0)->set_texts_scored(-1); }),
              HasSubstr("snapshot.arms[a].texts_scored: got -1, want a count, at most 2^53"));
  EXPECT_THAT(refusal([](M* m) {
                m->mutable_header()->mutable_arms(1)->set_prompt_tokens(
                    std::numeric_limits<std::int64_t>::max());
              }),
              HasSubstr("snapshot.arms[b].prompt_tokens: got 9223372036854775807"));
  EXPECT_THAT(refusal([](M* m) { m->mutable_units(0)->add_paired(1); }),
              HasSubstr("snapshot.units.paired"));
}

}  // namespace
}  // namespace penstock
