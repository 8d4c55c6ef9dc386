#include "server/experiments/ledger/ledger.h"

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/fake_clock.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

AnalysisPlan TwoArms() {
  AnalysisPlan plan;
  plan.experiment.name = "e";
  plan.experiment.audience = {"acme"};
  plan.experiment.unit = UnitKind::kUser;
  plan.experiment.arms = {{"b", "mlp", 5000}, {"a", "linear", 5000}};
  plan.experiment.control = "a";
  plan.unit_window = absl::Hours(1);
  plan.outcome_window = absl::Hours(1);
  plan.outcomes = {"click", "rating"};
  return plan;
}

class LedgerTest : public ::testing::Test {
 protected:
  LedgerTest() : ledger_({.clock = &clock_}) { ledger_.SetPlans({TwoArms()}); }

  // A request that is admitted now and ends after `latency`; the strings live until then.
  void Request(const std::string& user, const std::string& arm, absl::Duration latency,
               const std::string& request_id = "r", std::optional<std::int64_t> slice = {},
               const std::string& revision = "r1") {
    std::string unit = "acme";
    unit += '\0';
    unit += user;
    ExposedRequest request{.experiment = "e",
                           .revision = revision,
                           .arm = arm,
                           .tenant = "acme",
                           .unit = unit,
                           .request_id = request_id,
                           .slice = slice,
                           .admitted = clock_.Now(),
                           .period = period_,
                           .counts_exposures = counts_exposures_};
    ledger_.OnAdmitted(request);
    clock_.Advance(latency);
    RequestMeasures measures;
    measures.ok = true;
    measures.tokens = 3;
    measures.first_token = absl::Seconds(1);
    measures.latency = latency;
    measures.gaps = {absl::Seconds(0.1), absl::Seconds(0.3)};
    measures.logprob = -3;
    measures.scored_tokens = 3;
    ledger_.OnFinished(request, measures);
  }

  LedgerSnapshot Snapshot(bool with_units = false) {
    auto snapshot = ledger_.Snapshot("e", "", with_units);
    EXPECT_TRUE(snapshot.ok()) << snapshot.status();
    return *std::move(snapshot);
  }

  static UnitSums Sums(const LedgerSnapshot& snapshot, int arm, std::string_view metric) {
    return snapshot.arms.at(static_cast<std::size_t>(arm))
        .entered.metrics.at(static_cast<std::size_t>(*FindMetric(metric)))
        .Sums();
  }

  FakeClock clock_;
  Ledger ledger_;
  std::int64_t period_ = 1;
  bool counts_exposures_ = true;
};

TEST_F(LedgerTest, TotalsCountEveryRequestAndSumsOnlyClosedWindows) {
  Request("u1", "a", absl::Seconds(2));
  Request("u1", "a", absl::Seconds(4));
  Request("u2", "b", absl::Seconds(8));
  LedgerSnapshot open = Snapshot();
  ASSERT_EQ(open.arms.size(), 2u);
  EXPECT_EQ(open.arms[0].name, "a");
  EXPECT_EQ(open.arms[0].totals.sums[Quantity::kRequests], 2);
  EXPECT_EQ(open.arms[0].totals.sums[Quantity::kTokens], 6);
  EXPECT_EQ(open.arms[0].totals.gaps.count(), 4);
  EXPECT_NEAR(open.arms[0].totals.units.Estimate(), 1, 0.01);
  EXPECT_NEAR(*open.arms[1].totals.latency.Quantile(0.5), 8, 0.08);
  EXPECT_EQ(open.arms[0].entered.first_exposures, 1);
  EXPECT_EQ(Sums(open, 0, "latency").units, 0);

  clock_.Advance(absl::Hours(1));
  const LedgerSnapshot closed = Snapshot();
  EXPECT_EQ(Sums(closed, 0, "latency").units, 1);
  EXPECT_EQ(Sums(closed, 0, "latency").sum, 6);
  EXPECT_EQ(Sums(closed, 0, "latency").denominator_sum, 2);
  EXPECT_NEAR(Sums(closed, 0, "inter_token_latency").sum, 0.8, 1e-12);
  EXPECT_EQ(Sums(closed, 0, "inter_token_latency").denominator_sum, 4);
  EXPECT_EQ(Sums(closed, 0, "logprob").sum, -6);
}

TEST_F(LedgerTest, ErrorsCountAndCancellationsDoNot) {
  const auto end = [&](bool cancelled) {
    ExposedRequest request{.experiment = "e",
                           .revision = "r1",
                           .arm = "a",
                           .tenant = "acme",
                           .unit = "u",
                           .request_id = "r",
                           .slice = {},
                           .admitted = clock_.Now()};
    ledger_.OnAdmitted(request);
    RequestMeasures measures;
    measures.cancelled = cancelled;
    ledger_.OnFinished(request, measures);
  };
  end(true);
  end(false);
  const LedgerSnapshot snapshot = Snapshot();
  EXPECT_EQ(snapshot.arms[0].totals.sums[Quantity::kErrors], 1);
  EXPECT_EQ(snapshot.arms[0].totals.cancelled, 1);
  EXPECT_EQ(snapshot.arms[0].totals.latency.count(), 0);
}

TEST_F(LedgerTest, RevisionsAndPeriodsAreNeverMixed) {
  Request("u1", "a", absl::Seconds(1));
  Request("u1", "a", absl::Seconds(1), "r", {}, "r2");
  EXPECT_EQ(Snapshot().revision, "r2");
  EXPECT_EQ(Snapshot().arms[0].totals.sums[Quantity::kRequests], 1);
  EXPECT_EQ(ledger_.Snapshot("e", "r1", false)->arms[0].totals.sums[Quantity::kRequests], 1);
  EXPECT_THAT(ledger_.Snapshot("e", "r9", false).status().message(), HasSubstr("r2, r1"));
  EXPECT_THAT(ledger_.Snapshot("x", "", false).status().message(),
              HasSubstr("got x, running now: e"));

  counts_exposures_ = false;
  Request("u2", "a", absl::Seconds(1), "r", {}, "r2");
  EXPECT_EQ(Snapshot().arms[0].entered.first_exposures, 1);  // u1 alone
  EXPECT_EQ(Snapshot().arms[0].totals.sums[Quantity::kRequests], 2);
  counts_exposures_ = true;
  ++period_;
  Request("u2", "a", absl::Seconds(1), "r", {}, "r2");
  EXPECT_EQ(Snapshot().period, 2);
  EXPECT_EQ(Snapshot().arms[0].entered.first_exposures, 1);  // u2, anew
  EXPECT_EQ(Snapshot().arms[0].totals.sums[Quantity::kRequests], 1);
}

TEST_F(LedgerTest, AnAnalysisIsReportedBeforeItsFirstRequest) {
  ledger_.OpenBooks({{"e", "r1", 1}, {"unknown", "r1", 1}});
  EXPECT_EQ(Snapshot().revision, "r1");
  EXPECT_EQ(ledger_.Snapshots().size(), 1u);
  Request("u1", "a", absl::Seconds(1));
  const absl::Time since = Snapshot().since;
  ledger_.OpenBooks({{"e", "r1", 1}});
  EXPECT_EQ(Snapshot().since, since) << "it is open";
  EXPECT_EQ(Snapshot().arms[0].totals.sums[Quantity::kRequests], 1);

  ledger_.OpenBooks({{"e", "r1", 2}});
  EXPECT_EQ(Snapshot().period, 2);
  EXPECT_EQ(Snapshot().arms[0].totals.sums[Quantity::kRequests], 0);
  EXPECT_EQ(Snapshot().since, clock_.Now());
  EXPECT_THAT(std::string(ledger_.Snapshot("e", "r9", false).status().message()),
              EndsWith("measured: r1"))
      << "once, though there are two periods of it";
  for (const std::string revision : {"r2", "r3", "r4"}) ledger_.OpenBooks({{"e", revision, 2}});
  EXPECT_EQ(Snapshot().revision, "r4");
  EXPECT_EQ(ledger_.Snapshot("e", "r1", false)->arms[0].totals.sums[Quantity::kRequests], 1)
      << "what measured nothing pushes out nothing";
  ledger_.OpenBooks({{"e", "r1", 1}});
  EXPECT_EQ(Snapshot().revision, "r1") << "a reload was taken back";
  EXPECT_EQ(Snapshot().arms[0].totals.sums[Quantity::kRequests], 1);
}

TEST_F(LedgerTest, AnotherWindowStartsAnewButAnotherExposureDoesNot) {
  Request("u1", "a", absl::Seconds(1));
  AnalysisPlan plan = TwoArms();
  plan.experiment.exposed = 10;
  ledger_.SetPlans({plan});
  Request("u1", "a", absl::Seconds(1));
  EXPECT_EQ(Snapshot().arms[0].totals.sums[Quantity::kRequests], 2);
  plan.unit_window = absl::Hours(2);
  ledger_.SetPlans({plan});
  Request("u1", "a", absl::Seconds(1));
  EXPECT_EQ(Snapshot().arms[0].totals.sums[Quantity::kRequests], 1);
  ledger_.SetPlans({});
  EXPECT_FALSE(ledger_.Snapshot("e", "", false).ok());
}

TEST_F(LedgerTest, RequestsThatAreUnitsShareOneBook) {
  AnalysisPlan plan = TwoArms();
  plan.experiment.unit = UnitKind::kRequest;
  ledger_.SetPlans({plan});
  for (const std::string unit : {"r1", "r2", "r3"}) Request(unit, "a", absl::Seconds(1), unit);
  EXPECT_EQ(Snapshot().arms[0].entered.first_exposures, 3);
  EXPECT_EQ(Sums(Snapshot(), 0, "latency").units, 3);
}

TEST_F(LedgerTest, AnOutcomeIsJoinedByRequestOrByUnitOnce) {
  Request("u1", "a", absl::Seconds(1), "req-1");
  const Outcome by_request{.tenant = "acme",
                           .request_id = "req-1",
                           .session_id = {},
                           .user = {},
                           .name = "click",
                           .value = 1,
                           .idempotency_key = "k1"};
  EXPECT_THAT(ledger_.ReportOutcome(by_request)->experiments, ElementsAre("e"));
  EXPECT_TRUE(ledger_.ReportOutcome(by_request)->repeated);
  Outcome by_user = by_request;
  by_user.request_id = "";
  by_user.user = "u1";
  by_user.idempotency_key = "";
  by_user.value = 2;
  EXPECT_THAT(ledger_.ReportOutcome(by_user)->experiments, ElementsAre("e"));
  Outcome unknown = by_request;
  unknown.request_id = "req-9";
  unknown.idempotency_key = "";
  EXPECT_THAT(ledger_.ReportOutcome(unknown)->experiments, IsEmpty());

  clock_.Advance(absl::Hours(2));
  EXPECT_EQ(Snapshot().arms[0].entered.outcomes[0].Sums().sum, 3);
  EXPECT_EQ(Snapshot().arms[0].entered.outcomes[1].Sums().sum, 0);
  EXPECT_THAT(ledger_.ReportOutcome(by_user)->experiments, IsEmpty());  // past its window
}

TEST_F(LedgerTest, ABadOutcomeIsRefusedByField) {
  const Outcome good{.tenant = "acme",
                     .request_id = "r",
                     .session_id = {},
                     .user = {},
                     .name = "click",
                     .value = 1,
                     .idempotency_key = {}};
  const auto refusal = [&](auto change) {
    Outcome bad = good;
    change(&bad);
    return std::string(ledger_.ReportOutcome(bad).status().message());
  };
  EXPECT_THAT(refusal([](Outcome* o) { o->request_id = ""; }),
              HasSubstr("request_id: got neither"));
  EXPECT_THAT(refusal([](Outcome* o) { o->user = "u"; }), HasSubstr("request_id: got both"));
  EXPECT_THAT(refusal([](Outcome* o) { o->name = "clik"; }),
              HasSubstr("name: got 'clik', want an outcome of an experiment: click, rating"));
  EXPECT_THAT(refusal([](Outcome* o) { o->tenant = "other"; }), HasSubstr("none of this tenant"));
  EXPECT_THAT(refusal([](Outcome* o) { o->value = std::nan(""); }), HasSubstr("value: got nan"));
  const std::string long_key(129, 'k');
  EXPECT_THAT(refusal([&](Outcome* o) { o->idempotency_key = long_key; }),
              HasSubstr("idempotency_key: got 129 bytes, want at most 128"));
}

TEST_F(LedgerTest, SlicesAreUnitsWithoutBurnInAndWithoutRequestsAcrossABorder) {
  AnalysisPlan plan = TwoArms();
  plan.experiment.switchback_slice = absl::Minutes(1);
  plan.burn_in = absl::Seconds(10);
  ledger_.SetPlans({plan});
  const std::int64_t slice = absl::ToUnixSeconds(clock_.Now()) / 60 + 1;
  clock_.Advance(absl::FromUnixSeconds(60 * slice) - clock_.Now());
  Request("u1", "a", absl::Seconds(1), "r", slice);  // in the burn-in
  clock_.Advance(absl::Seconds(19));
  Request("u1", "a", absl::Seconds(2), "r", slice);
  Request("u2", "a", absl::Seconds(4), "r", slice);
  const auto since = [this](double seconds) { return clock_.Now() - absl::Seconds(seconds); };
  // The burn-in ended 16 s ago.
  ASSERT_EQ(clock_.Now(), absl::FromUnixSeconds(60 * slice + 26));
  const auto look = [&](const std::string& router, double seconds, std::int64_t rows) {
    ledger_.OnRouters({{.router = router,
                        .since = since(seconds),
                        .rows = rows,
                        .time = absl::Seconds(1),
                        .layers = {},
                        .lately = {}}});
  };
  look("linear", 17, 1);
  look("linear", 16, 10);
  look("mlp", 1, 5);
  Request("u2", "a", absl::Seconds(60), "r", slice);  // across the border
  look("linear", 60, 1);
  clock_.Advance(absl::Minutes(2));
  const LedgerSnapshot snapshot = Snapshot();
  EXPECT_EQ(snapshot.arms[0].totals.sums[Quantity::kRequests], 4);
  EXPECT_EQ(snapshot.arms[0].totals.left_out, 2);
  EXPECT_EQ(snapshot.arms[0].entered.first_exposures, 1);
  EXPECT_EQ(Sums(snapshot, 0, "latency").units, 1);
  EXPECT_EQ(Sums(snapshot, 0, "latency").sum, 6);
  EXPECT_EQ(Sums(snapshot, 0, "router_gpu_time").sum, 1);
  EXPECT_EQ(Sums(snapshot, 0, "router_gpu_time").denominator_sum, 10);
  EXPECT_EQ(snapshot.arms[1].totals.sums[Quantity::kRouterSeconds], 1);
}

// What it is asked about, as measures: of the first layer its rows, the slots of its first expert
// and its entropy; how many layers there are.
std::optional<RouterMeasures> Echo(std::span<const RoutedLayer> layers) {
  return RouterMeasures{.token_entropy = static_cast<double>(layers[0].rows),
                        .load_entropy = static_cast<double>(layers[0].slots[0]),
                        .imbalance = layers[0].entropy,
                        .idle_experts = static_cast<double>(layers.size())};
}

TEST_F(LedgerTest, ASliceIsMeasuredByWhatWasRoutedInItAlone) {
  Ledger ledger({.clock = &clock_, .measure = Echo});
  AnalysisPlan plan = TwoArms();
  plan.experiment.switchback_slice = absl::Minutes(1);
  plan.burn_in = absl::Seconds(10);
  ledger.SetPlans({plan});
  const std::int64_t first = absl::ToUnixSeconds(clock_.Now()) / 60 + 1;
  const auto go_to = [&](std::int64_t slice, int second) {
    clock_.Advance(absl::FromUnixSeconds(60 * slice + second) - clock_.Now());
  };
  const auto admit = [&](std::int64_t slice, std::string_view arm) {
    const ExposedRequest request{.experiment = "e",
                                 .revision = "r1",
                                 .arm = arm,
                                 .tenant = "acme",
                                 .unit = "u",
                                 .request_id = "r",
                                 .slice = slice,
                                 .admitted = clock_.Now()};
    ledger.OnAdmitted(request);
    ledger.OnFinished(request, RequestMeasures());
  };
  const auto look = [&](int seconds, const std::string& router, std::int64_t rows) {
    ledger.OnRouters({{.router = router,
                       .since = clock_.Now() - absl::Seconds(seconds),
                       .rows = rows,
                       .time = absl::Seconds(1),
                       .layers = {{.rows = rows, .slots = {rows / 2, rows}, .entropy = 0.5},
                                  {.rows = rows, .slots = {rows, 0}, .entropy = 0.25}},
                       .lately = RouterMeasures{.token_entropy = 9}}});
  };
  go_to(first, 15);
  admit(first, "a");
  go_to(first, 20);
  look(15, "linear", 1000);  // reaches into the burn-in
  look(10, "linear", 4);
  look(10, "mlp", 100);  // not this slice's arm
  go_to(first, 30);
  look(10, "linear", 6);
  go_to(first + 1, 5);
  look(35, "linear", 1000);  // reaches across the border
  go_to(first + 1, 11);
  admit(first + 1, "a");
  go_to(first + 1, 21);
  look(10, "linear", 20);
  go_to(first + 2, 0);
  const LedgerSnapshot snapshot = *ledger.Snapshot("e", "", false);
  // Slices of 10 and of 20 rows; each weighs as many as it has.
  EXPECT_EQ(Sums(snapshot, 0, "token_entropy").units, 2);
  EXPECT_EQ(Sums(snapshot, 0, "token_entropy").denominator_sum, 10 + 20);
  EXPECT_EQ(Sums(snapshot, 0, "token_entropy").sum, 10 * 10 + 20 * 20);
  EXPECT_EQ(Sums(snapshot, 0, "load_entropy").sum, 10 * (2 + 3) + 20 * 10);
  EXPECT_EQ(Sums(snapshot, 0, "imbalance").sum, 10 * (0.5 + 0.5) + 20 * 0.5);
  EXPECT_EQ(Sums(snapshot, 0, "idle_experts").sum, 2 * (10 + 20));
  EXPECT_EQ(Sums(snapshot, 0, "router_gpu_time").denominator_sum, 10 + 20);
  // Of the last minute, over all traffic.
  EXPECT_EQ(snapshot.arms[0].totals.sums[Quantity::kMeasuredRows], 2030);
  EXPECT_EQ(snapshot.arms[0].totals.sums[Quantity::kTokenEntropy], 9 * 2030);
}

TEST_F(LedgerTest, PairedScoresEnterUnderTheArmThatWasScored) {
  Request("u1", "a", absl::Seconds(1));
  std::string unit = "acme";
  unit += '\0';
  unit += "u1";
  const ExposedRequest request{.experiment = "e",
                               .revision = "r1",
                               .arm = "a",
                               .tenant = "acme",
                               .unit = unit,
                               .request_id = "r",
                               .slice = {},
                               .admitted = clock_.Now() - absl::Seconds(1)};
  ledger_.OnPaired(request, "b", {.difference = -2, .tokens = 8});
  clock_.Advance(absl::Hours(2));
  const LedgerSnapshot snapshot = Snapshot();
  EXPECT_EQ(snapshot.arms[1].entered.paired.Sums().sum, -2);
  EXPECT_EQ(snapshot.arms[1].entered.paired.Sums().denominator_sum, 8);
  EXPECT_EQ(snapshot.arms[0].entered.paired.units(), 0);
}

}  // namespace
}  // namespace penstock
