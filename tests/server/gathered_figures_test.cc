// Samples of several replicas, as a Prometheus has them.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/experiment_figures.h"
#include "server/telemetry/metrics.h"

namespace penstock {
namespace {

using ::testing::HasSubstr;

Experiment TwoArms() {
  Experiment experiment;
  experiment.name = "e";
  experiment.arms = {{"a", "linear", 5000}, {"b", "mlp", 5000}};
  experiment.control = "a";
  return experiment;
}

void Add(std::vector<ExperimentSample>* samples, const std::string& instance, const Metric& metric,
         double value, std::map<std::string, std::string> labels = {}) {
  labels.insert({{"experiment", "e"}, {"revision", "r"}, {"instance", instance}});
  samples->push_back({metric.name, std::move(labels), value});
}

std::vector<ExperimentSample> Replica(const std::string& instance, int period, double window) {
  std::vector<ExperimentSample> samples;
  for (const std::string arm : {"a", "b"}) {
    Add(&samples, instance, metrics::kFirstExposures, 5, {{"arm", arm}});
  }
  Add(&samples, instance, metrics::kAnalysisPeriod, period);
  Add(&samples, instance, metrics::kMeasuringWindow, window, {{"window", "unit"}});
  Add(&samples, instance, metrics::kMeasuringWindow, 10, {{"window", "burn_in"}});
  return samples;
}

std::vector<ExperimentSample> Both(std::vector<ExperimentSample> a,
                                   const std::vector<ExperimentSample>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(GatheredFiguresTest, ReplicasAddUpAndTheirPeriodsAreKept) {
  const auto gathered = GatherFigures(Both(Replica("h:1", 2, 60), Replica("h:2", 1, 60)), TwoArms(),
                                      {}, /*revision=*/"");
  ASSERT_TRUE(gathered.ok()) << gathered.status();
  EXPECT_EQ(gathered->replicas, 2);
  EXPECT_EQ(gathered->first_exposures(), 20);
  EXPECT_EQ(gathered->earliest_period, 1);
  EXPECT_EQ(gathered->period, 2);
}

TEST(GatheredFiguresTest, TextsOfBothReplicasAreAddedUpByWhoWroteThem) {
  std::vector<ExperimentSample> samples = Both(Replica("h:1", 1, 60), Replica("h:2", 1, 60));
  for (const std::string instance : {"h:1", "h:2"}) {
    const auto traffic = [&](const char* quantity, double sum) {
      Add(&samples, instance, metrics::kTraffic, sum, {{"arm", "b"}, {"quantity", quantity}});
    };
    traffic("texts_scored", 7);
    traffic("texts_dropped", 2);
    traffic("text_tokens", 70);
    for (const auto& [metric, sum] :
         {std::pair{metrics::kMetricCount, 5.0}, std::pair{metrics::kMetricSum, 7.0},
          std::pair{metrics::kMetricSumSquares, 11.0}}) {
      Add(&samples, instance, metric, sum, {{"arm", "b"}, {"metric", "paired_texts"}});
    }
  }
  const auto gathered = GatherFigures(samples, TwoArms(), {}, "");
  ASSERT_TRUE(gathered.ok()) << gathered.status();
  const ArmSnapshot& arm = gathered->arms[1];
  EXPECT_EQ(arm.totals.texts.scored, 14);
  EXPECT_EQ(arm.totals.texts.dropped, 4);
  EXPECT_EQ(arm.totals.texts.tokens, 140);
  EXPECT_EQ(arm.entered.texts.units(), 10);
  EXPECT_DOUBLE_EQ(arm.entered.texts.Sums().sum_squares, 22);
  EXPECT_EQ(gathered->arms[0].totals.texts.scored, 0);
}

TEST(GatheredFiguresTest, WindowsThatDifferAreRefusedByName) {
  const auto gathered = GatherFigures(Both(Replica("h:1", 1, 60), Replica("h:2", 1, 3600)),
                                      TwoArms(), {}, /*revision=*/"");
  EXPECT_EQ(gathered.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(gathered.status().message()),
              HasSubstr("several values of unit_window: 60 s on h:1, 3600 s on h:2"));
}

}  // namespace
}  // namespace penstock
