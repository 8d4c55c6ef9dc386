#include "server/experiments/ledger/snapshot.h"

#include <random>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/experiments/ledger/ledger.h"
#include "tests/support/fake_clock.h"

namespace penstock {
namespace {

using ::testing::HasSubstr;

constexpr int kUnits = 400;

AnalysisPlan Plan(std::int64_t max_units = 200'000) {
  AnalysisPlan plan;
  plan.experiment.name = "e";
  plan.experiment.arms = {{"a", "linear", 5000}, {"b", "mlp", 5000}};
  plan.experiment.control = "a";
  plan.unit_window = absl::Hours(1);
  plan.max_units = max_units;
  return plan;
}

// Replicas that share traffic: each request goes to one of them, and to the one that sees all.
class Replicas {
 public:
  explicit Replicas(std::int64_t max_units = 200'000)
      : whole_({.clock = &clock_}), first_({.clock = &clock_}), second_({.clock = &clock_}) {
    whole_.SetPlans({Plan()});
    first_.SetPlans({Plan(max_units)});
    second_.SetPlans({Plan(max_units)});
  }

  void Send(int user, int replica, double latency) {
    const std::string unit = absl::StrCat("user ", user);
    const ExposedRequest request{.experiment = "e",
                                 .revision = "r",
                                 .arm = user % 2 == 0 ? "a" : "b",
                                 .tenant = "t",
                                 .unit = unit,
                                 .request_id = "r",
                                 .slice = {},
                                 .admitted = clock_.Now()};
    RequestMeasures measures;
    measures.ok = true;
    measures.tokens = 1 + user % 7;
    measures.latency = absl::Seconds(latency);
    // Of a third of the texts nothing comes.
    std::optional<std::int64_t> scored;
    if (++requests_ % 3 != 0) scored = measures.tokens;
    measures.awaits_text = true;
    for (Ledger* ledger : {&whole_, replica == 0 ? &first_ : &second_}) {
      ledger->OnAdmitted(request);
      ledger->OnFinished(request, measures);
      if (scored) {
        ledger->OnPaired(request, "b",
                         {.difference = -latency, .tokens = static_cast<double>(*scored)});
      }
      ledger->OnTextEnded(request, scored);
    }
    clock_.Advance(absl::Milliseconds(10));
  }

  void OpenSecond() { second_.OpenBooks({{"e", "r", 1}}); }
  void CloseWindows() { clock_.Advance(absl::Hours(2)); }
  LedgerSnapshot whole(bool units = true) { return *whole_.Snapshot("e", "", units); }
  LedgerSnapshot first(bool units = true) { return *first_.Snapshot("e", "", units); }
  LedgerSnapshot second(bool units = true) { return *second_.Snapshot("e", "", units); }

 private:
  FakeClock clock_;
  Ledger whole_, first_, second_;
  int requests_ = 0;
};

void ExpectSameMoments(const UnitMoments& got, const UnitMoments& want) {
  const UnitSums a = got.Sums(), b = want.Sums();
  EXPECT_EQ(a.units, b.units);
  EXPECT_NEAR(a.sum, b.sum, 1e-9 * (1 + std::abs(b.sum)));
  EXPECT_NEAR(a.sum_squares, b.sum_squares, 1e-9 * (1 + b.sum_squares));
  EXPECT_NEAR(a.denominator_sum_squares, b.denominator_sum_squares,
              1e-9 * (1 + b.denominator_sum_squares));
  EXPECT_NEAR(a.cross_sum, b.cross_sum, 1e-9 * (1 + std::abs(b.cross_sum)));
}

void ExpectSameSums(const LedgerSnapshot& got, const LedgerSnapshot& want) {
  for (std::size_t arm = 0; arm < want.arms.size(); ++arm) {
    EXPECT_EQ(got.arms[arm].entered.first_exposures, want.arms[arm].entered.first_exposures);
    EXPECT_EQ(got.arms[arm].totals.units.registers(), want.arms[arm].totals.units.registers());
    EXPECT_EQ(got.arms[arm].totals.latency.Quantile(0.9),
              want.arms[arm].totals.latency.Quantile(0.9));
    for (std::size_t m = 0; m < MetricDefinitions().size(); ++m) {
      SCOPED_TRACE(MetricDefinitions()[m].name);
      ExpectSameMoments(got.arms[arm].entered.metrics[m], want.arms[arm].entered.metrics[m]);
    }
    SCOPED_TRACE("texts");
    ExpectSameMoments(got.arms[arm].entered.paired, want.arms[arm].entered.paired);
    ExpectSameMoments(got.arms[arm].entered.texts, want.arms[arm].entered.texts);
    const WrittenTexts &texts = got.arms[arm].totals.texts, &all = want.arms[arm].totals.texts;
    EXPECT_EQ(texts.scored, all.scored);
    EXPECT_EQ(texts.dropped, all.dropped);
    EXPECT_EQ(texts.tokens, all.tokens);
    EXPECT_GT(all.scored, all.dropped);
    EXPECT_EQ(all.scored + all.dropped, want.arms[arm].totals.sums[Quantity::kRequests]);
  }
}

TEST(SnapshotTest, ReplicasThatKeepTheirUnitsMergeExactly) {
  Replicas replicas;
  std::mt19937 random(1);
  for (int i = 0; i < 4 * kUnits; ++i) {
    const int user = static_cast<int>(random() % kUnits);
    replicas.Send(user, user / 2 % 2, 1 + (random() % 100) / 10.0);
  }
  replicas.CloseWindows();
  const LedgerSnapshot whole = replicas.whole();
  const auto merged = Merge(replicas.first(), replicas.second());
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_EQ(merged->replicas, 2);
  EXPECT_EQ(merged->split_units, 0);
  ExpectSameSums(*merged, whole);
  // The same to the bit whoever is merged into whom.
  const auto other_way = Merge(replicas.second(), replicas.first());
  EXPECT_EQ(merged->arms[0].entered.metrics[4].Sums().sum_squares,
            other_way->arms[0].entered.metrics[4].Sums().sum_squares);
  // And, where no unit is split, from sums alone.
  const auto sums = Merge(replicas.first(false), replicas.second(false));
  ASSERT_TRUE(sums.ok());
  ExpectSameSums(*sums, whole);
  EXPECT_LT(sums->split_estimate, 0.05 * kUnits);
}

TEST(SnapshotTest, SplitUnitsAreNoticedAndCountOnce) {
  Replicas replicas;
  std::mt19937 random(2);
  for (int i = 0; i < 4 * kUnits; ++i) {
    replicas.Send(i % kUnits, i / kUnits % 2, 1 + (random() % 100) / 10.0);
  }
  replicas.CloseWindows();
  const auto merged = Merge(replicas.first(), replicas.second());
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_EQ(merged->split_units, kUnits);
  ExpectSameSums(*merged, replicas.whole());
  const auto sums = Merge(replicas.first(false), replicas.second(false));
  EXPECT_GT(sums->split_estimate, 0.9 * kUnits);
  EXPECT_EQ(sums->first_exposures(), 2 * kUnits);  // twice: which is why it must be noticed
}

TEST(SnapshotTest, ReplicasMergeAfterTheirSubsamplesHaveHalved) {
  Replicas replicas(/*max_units=*/64);
  for (int user = 0; user < kUnits; ++user) replicas.Send(user, user / 2 % 2, 1 + user % 10);
  replicas.CloseWindows();
  const auto merged = Merge(replicas.first(), replicas.second());
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_GT(merged->sample_level, 0);
  const LedgerSnapshot first = replicas.first(), second = replicas.second();
  for (std::size_t arm = 0; arm < 2; ++arm) {
    EXPECT_EQ(
        merged->arms[arm].entered.metrics[0].units(),
        first.arms[arm].entered.metrics[0].units() + second.arms[arm].entered.metrics[0].units());
    EXPECT_EQ(merged->arms[arm].entered.first_exposures,
              first.arms[arm].entered.first_exposures + second.arms[arm].entered.first_exposures);
  }
}

TEST(SnapshotTest, AReplicaWithoutTrafficIsOneMore) {
  Replicas replicas;
  for (int user = 0; user < 10; ++user) replicas.Send(user, 0, 1 + user);
  replicas.OpenSecond();
  for (const bool units : {true, false}) {
    const auto merged = Merge(replicas.first(units), replicas.second(units));
    ASSERT_TRUE(merged.ok()) << merged.status();
    EXPECT_EQ(merged->replicas, 2);
    ExpectSameSums(*merged, replicas.whole(units));
  }
}

TEST(SnapshotTest, PeriodsThatDifferAreTold) {
  Replicas replicas;
  replicas.Send(1, 0, 1);
  replicas.Send(3, 1, 1);
  LedgerSnapshot later = replicas.second();
  later.period = later.earliest_period = 4;
  for (const auto& merged : {Merge(replicas.first(), later), Merge(later, replicas.first())}) {
    ASSERT_TRUE(merged.ok()) << merged.status();
    EXPECT_EQ(merged->earliest_period, 1);
    EXPECT_EQ(merged->period, 4);
  }
}

TEST(SnapshotTest, WhatDiffersIsNamed) {
  Replicas replicas;
  replicas.Send(1, 0, 1);
  replicas.Send(1, 1, 1);
  LedgerSnapshot other = replicas.second();
  other.revision = "x";
  EXPECT_THAT(Merge(replicas.first(), other).status().message(),
              HasSubstr("cannot merge: revision is r on one server, x on another"));
  other = replicas.second();
  other.arms[0].share = 4000;
  EXPECT_THAT(Merge(replicas.first(), other).status().message(), HasSubstr("a:linear:4000"));
  other = replicas.second();
  other.outcomes = {"click"};
  EXPECT_THAT(Merge(replicas.first(), other).status().message(), HasSubstr("outcomes"));
  for (absl::Duration MeasuringWindows::*window :
       {&MeasuringWindows::unit, &MeasuringWindows::outcome, &MeasuringWindows::burn_in}) {
    other = replicas.second();
    other.windows.*window += absl::Seconds(1);
    EXPECT_EQ(Merge(replicas.first(), other).status().code(),
              absl::StatusCode::kFailedPrecondition);
  }
  EXPECT_THAT(Merge(replicas.first(), other).status().message(),
              HasSubstr("burn_in is 10s on one server, 11s on another"));
  other = replicas.second();
  other.units[0].arm = 0;
  EXPECT_EQ(Merge(replicas.first(), other)->contradictory_units, 1);
}

}  // namespace
}  // namespace penstock
