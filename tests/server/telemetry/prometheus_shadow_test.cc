// Series of shadow routing.
#include <map>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/telemetry/prometheus_harness.h"

namespace penstock {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST_F(PrometheusTelemetryTest, ShadowGaugesAreMeansOverLayersOfTheLastMinute) {
  telemetry_->OnStep(ShadowStep(4, 2, 3));
  clock_.Advance(absl::Seconds(1));
  telemetry_->OnStep(ShadowStep(6, 8, 1));
  StepEvent skipped;
  skipped.shadow = ShadowOutcome::kSkipped;
  telemetry_->OnStep(skipped);
  std::map<std::string, double> page = Scrape();
  EXPECT_DOUBLE_EQ(page.at(R"(penstock_shadow_overlap_ratio{router="a",shadow="b"})"), 0.75);
  EXPECT_DOUBLE_EQ(page.at(R"(penstock_shadow_kl_nats{router="a",shadow="b"})"), 0.4)
      << "of the layer that has it";
  EXPECT_EQ(page.at(R"(penstock_shadow_rows_total{router="a",shadow="b"})"), 10);
  EXPECT_EQ(page.at(R"(penstock_shadow_failed_rows_total{router="a",shadow="b"})"), 2);
  EXPECT_EQ(page.at(R"(penstock_shadow_steps_total{result="counted"})"), 2);
  EXPECT_EQ(page.at(R"(penstock_shadow_steps_total{result="skipped"})"), 1);
  EXPECT_DOUBLE_EQ(page.at("penstock_shadow_seconds_total"), 0.004);
  const std::string slow = telemetry_->ServeExpertMetrics();
  const auto layers = Samples(slow);
  EXPECT_DOUBLE_EQ(
      layers.at(R"(penstock_shadow_layer_overlap_ratio{router="a",shadow="b",layer="1"})"), 0.5);
  EXPECT_DOUBLE_EQ(
      layers.at(R"(penstock_shadow_layer_overlap_ratio{router="a",shadow="b",layer="3"})"), 1);
  EXPECT_DOUBLE_EQ(
      layers.at(R"(penstock_shadow_layer_entropy_ratio{router="a",shadow="b",layer="1"})"), 0.5);
  EXPECT_DOUBLE_EQ(
      layers.at(R"(penstock_shadow_layer_imbalance_ratio{router="a",shadow="b",layer="1"})"),
      kExperts);
  EXPECT_FALSE(
      layers.contains(R"(penstock_shadow_layer_kl_nats{router="a",shadow="b",layer="3"})"));
  clock_.Advance(absl::Seconds(61));
  page = Scrape();
  EXPECT_FALSE(page.contains(R"(penstock_shadow_overlap_ratio{router="a",shadow="b"})"));
  EXPECT_EQ(page.at(R"(penstock_shadow_rows_total{router="a",shadow="b"})"), 10);
}

TEST_F(PrometheusTelemetryTest, ShadowSeriesGoWithEitherRouter) {
  telemetry_->OnStep(ShadowStep(4, 2, 3));
  telemetry_->OnRoutersLoaded({"a"});
  EXPECT_THAT(telemetry_->ServeMetrics(), Not(HasSubstr("shadow=\"b\"")));
  telemetry_->OnStep(ShadowStep(4, 2, 3));
  EXPECT_THAT(telemetry_->ServeMetrics(), Not(HasSubstr("shadow=\"b\"")));
}

}  // namespace
}  // namespace penstock
