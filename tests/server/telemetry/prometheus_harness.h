// A PrometheusTelemetry of two routers and two sparse layers, events for it, and its pages as
// samples.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"
#include "gtest/gtest.h"
#include "server/telemetry/prometheus_telemetry.h"
#include "tests/support/fake_clock.h"

namespace penstock {

inline constexpr int kExperts = 4;
inline constexpr int kTopK = 2;
inline const std::map<std::string, std::int64_t> kGpuMemory = {{"weights", 40}, {"free", 7}};

template <typename Delimiter>
std::vector<std::string> Split(const std::string& text, Delimiter delimiter) {
  return absl::StrSplit(text, delimiter, absl::SkipEmpty());
}

// "name{labels}" -> value, of a page in Prometheus' text format.
inline std::map<std::string, double> Samples(const std::string& page) {
  std::map<std::string, double> samples;
  for (const std::string& line : Split(page, '\n')) {
    if (line[0] == '#') continue;
    const std::size_t space = line.rfind(' ');
    EXPECT_TRUE(samples.emplace(line.substr(0, space), std::stod(line.substr(space))).second)
        << "twice: " << line;
  }
  return samples;
}

// Layer 1: of `rows` rows `overlap` choices shared; layer 3: all shared.
inline StepEvent ShadowStep(std::int64_t rows, std::int64_t overlap, double kl) {
  StepEvent step;
  step.shadow = ShadowOutcome::kCounted;
  step.shadow_time = absl::Milliseconds(2);
  step.shadows.push_back({.router = "a",
                          .shadow = "b",
                          .layer = 1,
                          .rows = rows,
                          .overlap = overlap,
                          .kl_rows = rows,
                          .kl = kl,
                          .entropy = static_cast<double>(rows) * std::log(kExperts) / 2,
                          .slots = {kTopK * rows, 0, 0, 0},
                          .failed = 1});
  step.shadows.push_back({.router = "a",
                          .shadow = "b",
                          .layer = 3,
                          .rows = rows,
                          .overlap = kTopK * rows,
                          .slots = {rows, rows, 0, 0}});
  return step;
}

class PrometheusTelemetryTest : public testing::Test {
 protected:
  PrometheusTelemetryTest() {
    auto telemetry =
        PrometheusTelemetry::Create({.num_experts = kExperts,
                                     .top_k = kTopK,
                                     .layers = {1, 3},
                                     .tenants = {"acme"},
                                     .build = {{"version", "1.2.3"}},
                                     .clock = &clock_,
                                     .experiments = [] { return std::vector{Figures()}; },
                                     .gpu_memory = [] { return kGpuMemory; }});
    EXPECT_TRUE(telemetry.ok()) << telemetry.status();
    telemetry_ = *std::move(telemetry);
    telemetry_->OnRoutersLoaded({"a", "b"});
  }

  static ExperimentFigures Figures() {
    return {.experiment = "measured",
            .revision = "0123abcd",
            .since = absl::FromUnixMillis(1'800'000'000'250),
            .period = 3,
            .measured = 0.25,
            .sample_ratio_p_value = 0.5,
            .windows = {{.name = "unit", .seconds = 3600}},
            .first_exposures = {{.arm = "b", .units = 7}},
            .sums = {{.arm = "b",
                      .metric = "latency",
                      .count = 6,
                      .sum = 12,
                      .sum_squares = 30,
                      .cross_sum = 24},
                     {.arm = "b",
                      .metric = "successes",
                      .count = 6,
                      .sum = 9,
                      .sum_squares = 15,
                      .cross_sum = {}}},
            .traffic = {{.arm = "b", .quantity = "tokens", .sum = 90}},
            .unique_units = {{.arm = "b", .units = 8.5}},
            .durations = {{.arm = "b",
                           .metric = "latency",
                           .at_most = {{0.25, 0}, {0.5, 2}, {1, 5}},
                           .count = 5,
                           .sum = 3.5}},
            // The largest of 53 bits.
            .unit_sample = {17, 9007199254740991}};
  }

  // A step whose rows are all of one router: in layer 1 to experts as `slots` says, in layer 3
  // evenly to 0 and 1.
  static StepEvent Step(const std::string& router, std::vector<std::int64_t> slots) {
    std::int64_t rows = 0;
    for (const std::int64_t count : slots) rows += count;
    rows /= kTopK;
    StepEvent step{
        .phase = StepPhase::kDecode,
        .duration = absl::Milliseconds(5),
        .rows = rows,
        .routers = {{.router = router, .rows = rows, .router_time = absl::Microseconds(30)}},
        .routing = {},
        .gaps = {{.router = router, .gap = absl::Milliseconds(5)}},
        .expert_passes = 2};
    step.routing.push_back({router, 1, rows, std::move(slots),
                            static_cast<double>(rows) * std::log(kExperts) / 4,
                            static_cast<double>(rows) * 0.5});
    step.routing.push_back({router, 3, rows, {rows, rows, 0, 0}, 0, static_cast<double>(rows)});
    return step;
  }

  static RequestEvent Request(const std::string& tenant, const std::string& router) {
    return {.api = Api::kGrpc,
            .tenant = tenant,
            .router = router,
            .code = "OK",
            .experiment = {},
            .revision = {},
            .arm = {},
            .reason = {},
            .prompt_tokens = 100,
            .cached_prompt_tokens = 64,
            .generated_tokens = 10,
            .total = absl::Milliseconds(700),
            .queue = absl::Milliseconds(3),
            .prefill = absl::Milliseconds(40),
            .time_to_first_token = absl::Milliseconds(43),
            .started = true};
  }

  std::map<std::string, double> Scrape() const { return Samples(telemetry_->ServeMetrics()); }
  std::map<std::string, double> ScrapeExperts() const {
    return Samples(telemetry_->ServeExpertMetrics());
  }

  // At least one sample of every series.
  void Exercise() {
    telemetry_->SetExperiments({{"e", "0123abcd", {{"mlp", false}}}});
    telemetry_->OnStep(Step("a", {10, 6, 4, 0}));
    telemetry_->OnStep(Step("b", {1, 1, 1, 1}));
    telemetry_->OnStep(ShadowStep(4, 2, 3));
    RequestEvent request = Request("acme", "a");
    request.experiment = "e";
    telemetry_->OnRequestFinished(request);
    telemetry_->OnPairedText("e", "scored");
    telemetry_->OnThrottled("acme", "concurrent");
    telemetry_->OnLoad({.running = 2,
                        .waiting = 1,
                        .blocks_free = 5,
                        .blocks_active = 3,
                        .blocks_cached = 1,
                        .preemptions = 7});
  }

  FakeClock clock_;
  std::unique_ptr<PrometheusTelemetry> telemetry_;
};

}  // namespace penstock
