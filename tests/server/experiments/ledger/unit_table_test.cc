#include "server/experiments/ledger/unit_table.h"

#include <set>

#include "gtest/gtest.h"

namespace penstock {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1'800'000'000);

AnalysisPlan TwoArms() {
  AnalysisPlan plan;
  plan.experiment.arms = {{"a", "linear", 5000}, {"b", "mlp", 5000}};
  plan.experiment.control = "a";
  plan.unit_window = absl::Hours(24);
  plan.outcome_window = absl::Hours(1);
  plan.outcomes = {"click"};
  return plan;
}

// Begins a request of `hash` at `now` and ends it at once, with so many tokens.
void Request(UnitTable* table, std::uint64_t hash, int arm, absl::Time now, double tokens) {
  table->Begin(hash, arm, now, now + absl::Hours(24), false);
  if (UnitRecord* record = table->Find(hash, Entry::kMeasures, now, now)) {
    record->values[Quantity::kTokens] += tokens;
    record->values[Quantity::kRequests] += 1;
    table->End(hash, now);
  }
}

UnitSums Tokens(const UnitTable& table, int arm) {
  return table.entered()[static_cast<std::size_t>(arm)].metrics[*FindMetric("tokens")].Sums();
}

TEST(UnitTableTest, AUnitEntersOnceWhenItsFirstWindowCloses) {
  UnitTable table(TwoArms());
  Request(&table, 8, 0, kStart, 10);
  Request(&table, 8, 0, kStart + absl::Hours(23), 5);
  table.Advance(kStart + absl::Hours(24) - absl::Nanoseconds(1));
  EXPECT_EQ(Tokens(table, 0).units, 0);
  table.Advance(kStart + absl::Hours(24));
  EXPECT_EQ(Tokens(table, 0).units, 1);
  EXPECT_EQ(Tokens(table, 0).sum, 15);
  // What it does later is not in the sequence, however long it goes on.
  for (int day = 1; day < 10; ++day) Request(&table, 8, 0, kStart + absl::Hours(24 * day), 100);
  table.Advance(kStart + absl::Hours(1000));
  EXPECT_EQ(Tokens(table, 0).units, 1);
  EXPECT_EQ(Tokens(table, 0).sum, 15);
  EXPECT_EQ(table.entered()[0].first_exposures, 1);
}

TEST(UnitTableTest, ARequestThatOutlivesTheWindowIsAwaited) {
  UnitTable table(TwoArms());
  const absl::Time late = kStart + absl::Hours(24) - absl::Seconds(1);
  Request(&table, 8, 0, kStart, 1);
  ASSERT_TRUE(table.Begin(8, 0, late, late + absl::Hours(24), false));
  const absl::Time end = kStart + absl::Hours(25);
  table.Advance(end);
  EXPECT_EQ(Tokens(table, 0).units, 0);
  UnitRecord* record = table.Find(8, Entry::kMeasures, late, end);
  ASSERT_NE(record, nullptr);
  record->values[Quantity::kTokens] += 4;
  table.End(8, late);
  EXPECT_EQ(Tokens(table, 0).sum, 5);
}

TEST(UnitTableTest, AUnitThatIsARequestEntersWhenItEnds) {
  UnitTable table(TwoArms());
  ASSERT_TRUE(table.Begin(8, 1, kStart, kStart, false));
  const absl::Time end = kStart + absl::Seconds(3);
  UnitRecord* record = table.Find(8, Entry::kMeasures, kStart, end);
  ASSERT_NE(record, nullptr);
  record->values[Quantity::kTokens] = 7;
  EXPECT_EQ(Tokens(table, 1).units, 0);
  table.End(8, kStart);
  EXPECT_EQ(Tokens(table, 1).units, 1);
  EXPECT_EQ(Tokens(table, 1).sum, 7);
}

TEST(UnitTableTest, OutcomesEnterAfterTheirOwnWindow) {
  UnitTable table(TwoArms());
  Request(&table, 8, 0, kStart, 1);
  const absl::Time at = kStart + absl::Hours(24) + absl::Minutes(30);
  UnitRecord* record = table.Find(8, Entry::kOutcomes, kStart, at);
  ASSERT_NE(record, nullptr);
  record->outcomes = {1};
  table.Advance(kStart + absl::Hours(25));
  EXPECT_EQ(table.entered()[0].outcomes[0].Sums().sum, 1);
  EXPECT_EQ(table.Find(8, Entry::kOutcomes, kStart, kStart + absl::Hours(26)), nullptr);
}

TEST(UnitTableTest, PairedScoresEnterWithTheLastOfTheUnitsTexts) {
  UnitTable table(TwoArms());
  const auto texts = [&] { return table.entered()[1].paired.Sums().denominator_sum; };
  const auto score = [&](absl::Time begun, absl::Time now) {
    UnitRecord* record = table.Find(8, Entry::kPaired, begun, now);
    ASSERT_NE(record, nullptr);
    record->paired.resize(2);
    record->paired[1].tokens += 4;
    table.EndText(8, begun);
  };
  // The first text is scored while its request still runs, the second after the window.
  const absl::Time second = kStart + absl::Hours(23), after = kStart + absl::Hours(25);
  ASSERT_TRUE(table.Begin(8, 0, kStart, kStart + absl::Hours(24), false));
  score(kStart, kStart + absl::Seconds(1));
  table.AwaitText(8, kStart);
  table.End(8, kStart);
  ASSERT_TRUE(table.Begin(8, 0, second, second + absl::Hours(24), false));
  table.AwaitText(8, second);
  table.End(8, second);
  table.Advance(after);
  EXPECT_EQ(table.entered()[0].metrics[0].units(), 1) << "what does not wait has entered";
  EXPECT_EQ(texts(), 0);
  // A request past the window holds nothing up.
  table.AwaitText(8, after);
  score(second, after);
  EXPECT_EQ(texts(), 8);
  table.EndText(8, after);
  EXPECT_EQ(texts(), 8);
}

TEST(UnitTableTest, WhileFrozenNoNewUnitIsCountedButKnownOnesGoOn) {
  UnitTable table(TwoArms());
  Request(&table, 8, 0, kStart, 1);
  const absl::Time later = kStart + absl::Hours(1);
  EXPECT_FALSE(table.Begin(16, 1, later, later + absl::Hours(24), true));
  EXPECT_TRUE(table.Begin(8, 0, later, later + absl::Hours(24), true));
  EXPECT_EQ(table.entered()[0].first_exposures, 1);
  EXPECT_EQ(table.entered()[1].first_exposures, 0);
}

TEST(UnitTableTest, TheSubsampleHalvesAndWhatHasEnteredStays) {
  AnalysisPlan plan = TwoArms();
  plan.max_units = 100;
  UnitTable table(plan);
  for (std::uint64_t i = 0; i < 100; ++i) Request(&table, i, static_cast<int>(i % 2), kStart, 1);
  EXPECT_EQ(table.level(), 0);
  const absl::Time next = kStart + absl::Hours(30);
  table.Advance(next);
  EXPECT_EQ(Tokens(table, 0).units + Tokens(table, 1).units, 100);
  for (std::uint64_t i = 100; i < 1000; ++i) {
    Request(&table, i, static_cast<int>(i / 16 % 2), next, 1);
    EXPECT_LE(table.size(), 100u);
  }
  EXPECT_GT(table.level(), 2);
  std::int64_t records = 0, retired = 0, exposures = 0;
  for (int arm = 0; arm < 2; ++arm) {
    retired += table.retired()[static_cast<std::size_t>(arm)].first_exposures;
    exposures += table.entered()[static_cast<std::size_t>(arm)].first_exposures;
  }
  for (const UnitRecord& record : SortedRecords(table.ShareRecords())) {
    ++records;
    EXPECT_EQ(record.hash % (std::uint64_t{1} << table.level()), 0u);
  }
  EXPECT_EQ(retired + records, exposures);
  EXPECT_EQ(Tokens(table, 0).units + Tokens(table, 1).units, 100);  // only ever grows
  table.Advance(next + absl::Hours(30));
  EXPECT_GT(Tokens(table, 0).units + Tokens(table, 1).units, 100);
  // A unit that left the subsample and comes again is not counted anew.
  Request(&table, 1, 1, next + absl::Hours(31), 1);
  EXPECT_EQ(table.entered()[0].first_exposures + table.entered()[1].first_exposures, exposures);
}

}  // namespace
}  // namespace penstock
