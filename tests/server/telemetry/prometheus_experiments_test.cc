// Series of experiments: what they assign, and what is measured of their arms.
#include <map>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/telemetry/prometheus_harness.h"

namespace penstock {
namespace {

using ::testing::Not;

TEST_F(PrometheusTelemetryTest, CountsWhatExperimentsAssign) {
  telemetry_->SetExperiments({{"e", "0123abcd", {{"control", false}, {"mlp", true}}}});
  telemetry_->OnRequestFinished(Request("acme", "a"));
  RequestEvent request = Request("acme", "a");
  request.experiment = "e";
  request.revision = "0123abcd";
  request.arm = "mlp";
  request.reason = "experiment";
  telemetry_->OnRequestFinished(request);
  telemetry_->OnRequestFinished(request);
  request.reason = "halted";
  telemetry_->OnRequestFinished(request);
  const auto samples = Scrape();
  const std::string series =
      R"(penstock_experiment_assignments_total{experiment="e",revision="0123abcd",arm="mlp",reason=)";
  EXPECT_EQ(samples.at(series + "\"experiment\"}"), 2);
  EXPECT_EQ(samples.at(series + "\"halted\"}"), 1);
  const std::string halted =
      R"(penstock_experiment_arm_halted{experiment="e",revision="0123abcd",arm=)";
  EXPECT_EQ(samples.at(halted + "\"mlp\"}"), 1);
  EXPECT_EQ(samples.at(halted + "\"control\"}"), 0);
  // Gone, and what still runs of it does not bring it back.
  telemetry_->SetExperiments({});
  telemetry_->OnRequestFinished(request);
  for (const auto& [name, value] : Scrape()) {
    EXPECT_THAT(name, Not(testing::HasSubstr("experiment=\"e\"")));
  }
}

TEST_F(PrometheusTelemetryTest, ExperimentsAreAskedAtEveryScrape) {
  const std::map<std::string, double> page = Scrape();
  const std::string of_e = R"({experiment="measured",revision="0123abcd")";
  EXPECT_EQ(page.at("penstock_experiment_sample_ratio_p_value" + of_e + "}"), 0.5);
  EXPECT_EQ(page.at("penstock_experiment_first_exposures" + of_e + R"(,arm="b"})"), 7);
  const auto value = [&](const std::string& series, const std::string& metric) {
    const auto found = page.find("penstock_experiment_metric_" + series + of_e +
                                 R"(,arm="b",metric=")" + metric + "\"}");
    return found == page.end() ? -1 : found->second;
  };
  EXPECT_EQ(value("count", "latency"), 6);
  EXPECT_EQ(value("sum", "latency"), 12);
  EXPECT_EQ(value("sum_squares", "latency"), 30);
  EXPECT_EQ(value("cross_sum", "latency"), 24);
  EXPECT_EQ(value("sum", "successes"), 9);
  EXPECT_EQ(value("cross_sum", "successes"), -1);  // a denominator has none
  EXPECT_EQ(page.at("penstock_experiment_analysis_start_time_seconds" + of_e + "}"), 1800000000.25);
  EXPECT_EQ(page.at("penstock_experiment_analysis_period" + of_e + "}"), 3);
  EXPECT_EQ(page.at("penstock_experiment_window_seconds" + of_e + R"(,window="unit"})"), 3600);
  EXPECT_EQ(page.at("penstock_experiment_units_measured_ratio" + of_e + "}"), 0.25);
  EXPECT_EQ(page.at("penstock_experiment_traffic" + of_e + R"(,arm="b",quantity="tokens"})"), 90);
  EXPECT_EQ(page.at("penstock_experiment_unique_units" + of_e + R"(,arm="b"})"), 8.5);
  EXPECT_EQ(page.at("penstock_experiment_unit_sample" + of_e + R"(,rank="1"})"), 9007199254740991);
  const std::string durations = R"(,arm="b",metric="latency")";
  EXPECT_EQ(
      page.at("penstock_experiment_duration_seconds_bucket" + of_e + durations + R"(,le="0.5"})"),
      2);
  EXPECT_EQ(
      page.at("penstock_experiment_duration_seconds_bucket" + of_e + durations + R"(,le="+Inf"})"),
      5);
  EXPECT_EQ(page.at("penstock_experiment_duration_seconds_count" + of_e + durations + "}"), 5);
  EXPECT_EQ(page.at("penstock_experiment_duration_seconds_sum" + of_e + durations + "}"), 3.5);
}

}  // namespace
}  // namespace penstock
