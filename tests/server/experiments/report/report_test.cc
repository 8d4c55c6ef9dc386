#include "server/experiments/report/report.h"

#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/experiments/ledger/quantities.h"

namespace penstock {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

LedgerSnapshot Empty(const std::vector<std::string>& arms) {
  LedgerSnapshot snapshot;
  snapshot.experiment = "e";
  snapshot.revision = "abcd0123";
  snapshot.control = "control";
  snapshot.outcomes = {"click"};
  for (const std::string& name : arms) {
    ArmSnapshot& arm = snapshot.arms.emplace_back();
    arm.name = name;
    arm.router = name == "control" ? "linear" : "mlp";
    arm.share = 10'000 / static_cast<int>(arms.size());
    arm.entered = arm.retired = ArmMoments(1);
  }
  return snapshot;
}

// `units` of each arm, whose latencies are normal around `mean` with spread 0.5 s.
void Fill(ArmSnapshot* arm, int units, double mean, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(mean, 0.5);
  for (int i = 0; i < units; ++i) {
    UnitRecord unit;
    unit.values[Quantity::kRequests] = unit.values[Quantity::kSuccesses] = 1 + i % 3;
    unit.values[Quantity::kLatencySeconds] = normal(random) * (1 + i % 3);
    unit.values[Quantity::kTokens] = 10 + i % 5;
    std::vector<ArmMoments> arms = {arm->entered};
    for (const Entry entry : {Entry::kMeasures, Entry::kOutcomes}) Enter(unit, entry, arms);
    arm->entered = arms[0];
    arm->totals.latency.Add(unit.values[Quantity::kLatencySeconds]);
    arm->totals.units.Add(UnitHash(std::to_string(seed) + "/" + std::to_string(i)));
  }
  arm->entered.first_exposures = units;
}

const Question kLatency = {.metric = "latency", .better = Better::kLower, .min_effect = 0.05};

TEST(ReportTest, AnArmThatIsBetterIsCalledBetterWithItsNumbers) {
  LedgerSnapshot snapshot = Empty({"control", "mlp"});
  Fill(&snapshot.arms[0], 2000, 2.0, 1);
  Fill(&snapshot.arms[1], 2000, 1.5, 2);
  const ExperimentReport report = MakeReport(snapshot, kLatency, {}, {});
  ASSERT_EQ(report.arms.size(), 2u);
  EXPECT_TRUE(report.arms[0].is_control);
  const ArmReport& mlp = report.arms[1];
  EXPECT_EQ(mlp.verdict, Verdict::kBetter);
  EXPECT_THAT(mlp.words, HasSubstr("mlp is better than control in latency: difference -0.5"));
  EXPECT_THAT(mlp.words, HasSubstr("always-valid 95 % interval"));
  EXPECT_THAT(mlp.words, HasSubstr("2000 users in mlp, 2000 in control"));
  const MetricReport& primary = mlp.metrics.front();
  EXPECT_TRUE(primary.primary);
  EXPECT_EQ(primary.metric, "latency");
  EXPECT_EQ(primary.units, 2000);
  EXPECT_NEAR(*primary.value, 1.5, 0.05);
  ASSERT_TRUE(primary.comparison && primary.comparison->relative);
  EXPECT_NEAR(primary.comparison->relative->difference, -0.25, 0.03);
  EXPECT_TRUE(primary.p99);
  EXPECT_FALSE(primary.adjusted_p);
  for (const MetricReport& metric : mlp.metrics) {
    EXPECT_EQ(metric.adjusted_p.has_value(), !metric.primary && metric.comparison.has_value());
  }
  EXPECT_EQ(report.summary, mlp.words);
}

TEST(ReportTest, TheSameIsWorseWhereHigherIsBetter) {
  LedgerSnapshot snapshot = Empty({"control", "mlp"});
  Fill(&snapshot.arms[0], 2000, 2.0, 1);
  Fill(&snapshot.arms[1], 2000, 1.5, 2);
  Question question = kLatency;
  question.better = Better::kHigher;
  EXPECT_EQ(MakeReport(snapshot, question, {}, {}).arms[1].verdict, Verdict::kWorse);
}

TEST(ReportTest, ArmsThatAreAlikeDifferByLessThanWhatMatters) {
  LedgerSnapshot snapshot = Empty({"control", "mlp"});
  Fill(&snapshot.arms[0], 20'000, 2.0, 1);
  Fill(&snapshot.arms[1], 20'000, 2.0, 2);
  const ExperimentReport report = MakeReport(snapshot, kLatency, {}, {});
  EXPECT_EQ(report.arms[1].verdict, Verdict::kNoLargerDifference);
  EXPECT_THAT(report.summary, HasSubstr("no difference that matters"));
}

TEST(ReportTest, TooFewUnitsSayWhatCouldBeSeen) {
  LedgerSnapshot snapshot = Empty({"control", "mlp"});
  Fill(&snapshot.arms[0], 100, 2.0, 1);
  Fill(&snapshot.arms[1], 100, 2.0, 2);
  const ExperimentReport report = MakeReport(snapshot, kLatency, {}, {});
  EXPECT_EQ(report.arms[1].verdict, Verdict::kNotEnoughUnits);
  EXPECT_THAT(report.summary, HasSubstr("would be seen by now in four of five experiments"));
  EXPECT_THAT(MakeReport(Empty({"control", "mlp"}), kLatency, {}, {}).summary,
              HasSubstr("too few units, or no variation among them; 0 users have entered"));
}

TEST(ReportTest, ASampleRatioMismatchWithholdsTheVerdictLoudly) {
  LedgerSnapshot snapshot = Empty({"control", "mlp"});
  Fill(&snapshot.arms[0], 2000, 2.0, 1);
  Fill(&snapshot.arms[1], 1500, 1.0, 2);
  const ExperimentReport report = MakeReport(snapshot, kLatency, {}, {});
  EXPECT_TRUE(report.sample_ratio_alarm);
  EXPECT_EQ(report.arms[1].verdict, Verdict::kWithheld);
  EXPECT_THAT(report.warnings.at(0), HasSubstr("SAMPLE-RATIO MISMATCH"));
  EXPECT_THAT(report.warnings.at(0), HasSubstr("mlp got 1500 of 1750 expected"));
  EXPECT_THAT(report.summary, HasSubstr("No verdict"));
}

TEST(ReportTest, SeveralTreatmentsShareAlpha) {
  LedgerSnapshot two = Empty({"control", "mlp"});
  LedgerSnapshot three = Empty({"a", "control", "mlp"});
  for (LedgerSnapshot* snapshot : {&two, &three}) {
    for (std::size_t i = 0; i < snapshot->arms.size(); ++i) {
      Fill(&snapshot->arms[i], 2000, 2.0,
           snapshot->arms[i].name == "mlp" ? 7
           : snapshot->arms[i].name == "a" ? 8
                                           : 9);
    }
  }
  const auto width = [](const ExperimentReport& report) {
    const Interval& interval = report.arms.back().metrics.front().comparison->interval;
    return interval.upper - interval.lower;
  };
  const ExperimentReport narrow = MakeReport(two, kLatency, {}, {});
  const ExperimentReport wide = MakeReport(three, kLatency, {}, {});
  EXPECT_EQ(wide.arms[0].name, "control");
  EXPECT_GT(width(wide), width(narrow));
  EXPECT_THAT(wide.arms.back().words, HasSubstr("always-valid 97.5 % interval"));
}

TEST(ReportTest, MeasuresOfARouterAreNotComparedOverUsers) {
  LedgerSnapshot snapshot = Empty({"control", "mlp"});
  for (ArmSnapshot& arm : snapshot.arms) {
    Fill(&arm, 100, 2.0, 1);
    arm.totals.sums[Quantity::kRouterSeconds] = 2;
    arm.totals.sums[Quantity::kRoutedRows] = 1000;
  }
  const ExperimentReport report = MakeReport(snapshot, kLatency, {}, {});
  for (const MetricReport& metric : report.arms[1].metrics) {
    if (metric.metric != "router_gpu_time") continue;
    EXPECT_EQ(metric.value, 0.002);
    EXPECT_FALSE(metric.comparison);
    EXPECT_THAT(metric.note, HasSubstr("switchback"));
  }
}

TEST(ReportTest, PairedDifferencesAreJudgedAgainstZero) {
  LedgerSnapshot snapshot = Empty({"control", "mlp"});
  std::mt19937 random(3);
  std::normal_distribution<double> normal(-0.1, 0.2);
  for (int i = 0; i < 500; ++i) snapshot.arms[1].entered.paired.Add(20 * normal(random), 20);
  snapshot.arms[0].entered.first_exposures = snapshot.arms[1].entered.first_exposures = 250;
  const Question question = {
      .metric = "paired_logprob", .better = Better::kHigher, .min_effect = 0.005};
  const ExperimentReport report = MakeReport(snapshot, question, {}, {});
  EXPECT_EQ(report.arms[1].verdict, Verdict::kWorse);
  EXPECT_NEAR(report.arms[1].metrics.front().comparison->difference, -0.1, 0.04);
  EXPECT_FALSE(report.arms[0].metrics.front().comparison);
}

TEST(ReportTest, WhereTextsWereScoredItSaysWhomTheyFavour) {
  const auto favour = HasSubstr(
      "A text favours the arm that wrote it. paired_logprob therefore "
      "samples alike from every arm");
  const Question paired = {
      .metric = "paired_logprob", .better = Better::kHigher, .min_effect = 0.005};
  LedgerSnapshot snapshot = Empty({"control", "mlp"});
  EXPECT_THAT(MakeReport(snapshot, paired, {}, {}).warnings, Contains(favour));
  EXPECT_THAT(MakeReport(snapshot, kLatency, {}, {}).warnings, Not(Contains(favour)));
  snapshot.arms[1].entered.paired.Add(-0.1, 20);
  const ExperimentReport secondary = MakeReport(snapshot, kLatency, {}, {});
  EXPECT_THAT(secondary.warnings, Contains(favour)) << "as a secondary metric too";
  EXPECT_EQ(secondary.methods.front().what, "paired log-probability");
  EXPECT_THAT(secondary.methods.front().how, HasSubstr("sampled alike from every arm"));
}

TEST(ReportTest, APrimaryMetricThatNobodyMeasuresIsSaidToBe) {
  const Question question = {.metric = "paired_logprob",
                             .better = Better::kHigher,
                             .min_effect = 0.005,
                             .unmeasured = "paired_logprob is not measured, since so and so"};
  LedgerSnapshot snapshot = Empty({"control", "mlp"});
  Fill(&snapshot.arms[0], 200, 2.0, 1);
  Fill(&snapshot.arms[1], 200, 2.0, 2);
  const ExperimentReport report = MakeReport(snapshot, question, {}, {});
  EXPECT_EQ(report.summary, "mlp is not judged: paired_logprob is not measured, since so and so.");
  EXPECT_EQ(report.arms[1].metrics[0].note, question.unmeasured);
  // What was measured before the configuration changed still counts.
  std::mt19937 random(3);
  std::normal_distribution<double> normal(-0.1, 0.2);
  for (int i = 0; i < 500; ++i) snapshot.arms[1].entered.paired.Add(20 * normal(random), 20);
  EXPECT_EQ(MakeReport(snapshot, question, {}, {}).arms[1].verdict, Verdict::kWorse);
}

TEST(ReportTest, AHaltedControlIsTheWholeExperimentStandingStill) {
  const ExperimentReport report =
      MakeReport(Empty({"control", "mlp"}),
                 {.metric = "error_rate", .better = Better::kLower, .min_effect = 0.01},
                 {{.arm = "control", .why = "by an operator"}}, {});
  EXPECT_THAT(report.warnings,
              ElementsAre("Arm control is HALTED: by an operator. Since then the whole experiment "
                          "stands still: every unit gets the default router, and nothing is "
                          "counted under any arm."));
}

TEST(ReportTest, HaltsSplitsAndSubsamplesAreSaid) {
  LedgerSnapshot snapshot = Empty({"control", "mlp"});
  snapshot.split_units = 3;
  snapshot.sample_level = 2;
  const ExperimentReport report =
      MakeReport(snapshot, {.metric = "error_rate", .better = Better::kLower, .min_effect = 0.01},
                 {{.arm = "mlp", .why = "error_rate 0.2 over 0.01"}}, {});
  EXPECT_EQ(report.arms[1].halted, "error_rate 0.2 over 0.01");
  EXPECT_EQ(report.sample_rate, 0.25);
  EXPECT_THAT(report.warnings, ElementsAre(HasSubstr("3 users went to more than one replica"),
                                           HasSubstr("rest on 25 % of the users"),
                                           AllOf(HasSubstr("mlp is HALTED"),
                                                 HasSubstr("its units get control's router"))));
}

TEST(ReportTest, SumsOfUnitsThatMayBeSplitGiveNoIntervals) {
  LedgerSnapshot snapshot = Empty({"control", "mlp"});
  Fill(&snapshot.arms[0], 2000, 2.0, 1);
  Fill(&snapshot.arms[1], 2000, 1.5, 2);
  snapshot.replicas = 2;
  const ExperimentReport report = MakeReport(snapshot, kLatency, {}, {.units_may_be_split = true});
  for (const MetricReport& metric : report.arms[1].metrics) EXPECT_FALSE(metric.comparison);
  EXPECT_THAT(report.warnings, Contains(HasSubstr("units may be split")));
  EXPECT_THAT(report.summary, HasSubstr("mlp is not judged"));
}

TEST(ReportTest, WhatSeriesDoNotSayIsSaid) {
  LedgerSnapshot snapshot = Empty({"control", "mlp"});
  snapshot.replicas = 2;
  snapshot.arms[1].unique_units = 12.5;
  snapshot.shared_units = {.sampled = 32, .split = 0, .replicas = 1};
  const ReportOptions options = {.units_may_be_split = true, .of_series = true};
  ExperimentReport report = MakeReport(snapshot, kLatency, {}, options);
  EXPECT_EQ(report.arms[1].unique_units, 12.5);
  EXPECT_THAT(report.warnings, Contains(HasSubstr("quantiles are interpolated")));
  EXPECT_THAT(report.warnings, Contains(HasSubstr("None of 32 users that were sampled by hash went "
                                                  "to more than one replica: at most 9.38 % of "
                                                  "all do")));
  snapshot.shared_units.split = 5;
  report = MakeReport(snapshot, kLatency, {}, options);
  EXPECT_THAT(report.warnings,
              Contains(HasSubstr("Of 32 users that were sampled by hash, 5 went to "
                                 "more than one replica: units ARE split.")));
  report = MakeReport(snapshot, kLatency, {}, {});
  for (const std::string& warning : report.warnings) {
    EXPECT_THAT(warning, Not(HasSubstr("Prometheus")));
  }
}

// A paper with its year, and the place in it.
void ExpectSources(const std::vector<Method>& methods, bool of_series) {
  for (const Method& method : methods) {
    if (of_series && method.what == "quantiles") continue;  // Prometheus' own
    EXPECT_THAT(method.source, ContainsRegex("[A-Z][a-z]+.*(19|20)[0-9][0-9]")) << method.what;
    EXPECT_THAT(method.source,
                ContainsRegex("(Theorems?|Proposition|eq\\.|section|algorithm|p\\.) [0-9]+"))
        << method.what;
  }
}

TEST(ReportTest, EveryMethodNamesItsSourceAndThePlaceInIt) {
  const Question paired = {
      .metric = "paired_logprob", .better = Better::kHigher, .min_effect = 0.005};
  for (const bool of_series : {false, true}) {
    const ReportOptions options = {.of_series = of_series};
    const auto primary = MakeReport(Empty({"control", "mlp"}), paired, {}, options).methods;
    EXPECT_EQ(primary.size(), 9u);
    EXPECT_EQ(primary[0].what, "paired log-probability");
    ExpectSources(primary, of_series);

    LedgerSnapshot scored = Empty({"control", "mlp"});
    EXPECT_EQ(MakeReport(scored, kLatency, {}, options).methods.size(), 7u);
    scored.arms[1].entered.paired.Add(0.5, 8);
    const auto secondary = MakeReport(scored, kLatency, {}, options).methods;
    EXPECT_EQ(secondary.size(), 9u) << "some texts were scored";
    ExpectSources(secondary, of_series);
  }
}

TEST(ReportTest, MixedPeriodsAreToldAloud) {
  LedgerSnapshot snapshot = Empty({"control", "mlp"});
  snapshot.replicas = 3;
  snapshot.earliest_period = snapshot.period = 2;
  EXPECT_THAT(MakeReport(snapshot, kLatency, {}, {}).warnings, Not(Contains(HasSubstr("PERIODS"))));
  snapshot.earliest_period = 1;
  EXPECT_THAT(MakeReport(snapshot, kLatency, {}, {}).warnings,
              Contains(HasSubstr("PERIODS ARE MIXED: of 3 replicas some are in period 1 of the "
                                 "analysis, some in period 2.")));
}

}  // namespace
}  // namespace penstock
