#include "server/telemetry/prometheus_telemetry.h"

#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/telemetry/prometheus_harness.h"

namespace penstock {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

TEST_F(PrometheusTelemetryTest, CountsRequestsByRouterCodeAndApi) {
  telemetry_->OnRequestFinished(Request("acme", "a"));
  RequestEvent refused;
  refused.api = Api::kOpenAi;
  refused.tenant = "nobody";
  refused.code = "UNAUTHENTICATED";
  telemetry_->OnRequestFinished(refused);
  refused.code = "no such code";
  telemetry_->OnRequestFinished(refused);
  const auto samples = Scrape();
  EXPECT_EQ(samples.at(R"(penstock_requests_total{router="a",code="OK",api="grpc"})"), 1);
  EXPECT_EQ(
      samples.at(R"(penstock_requests_total{router="none",code="UNAUTHENTICATED",api="openai"})"),
      1);
  EXPECT_EQ(samples.at(R"(penstock_requests_total{router="none",code="UNKNOWN",api="openai"})"), 1);
  EXPECT_EQ(samples.at(R"(penstock_tenant_requests_total{tenant="acme",code="OK"})"), 1);
  EXPECT_EQ(samples.at(R"(penstock_tenant_requests_total{tenant="other",code="UNAUTHENTICATED"})"),
            1);
}

TEST_F(PrometheusTelemetryTest, CountsTokensAndCacheHits) {
  telemetry_->OnRequestFinished(Request("acme", "a"));
  telemetry_->OnRequestFinished(Request("acme", "a"));
  const auto samples = Scrape();
  EXPECT_EQ(samples.at(R"(penstock_prompt_tokens_total{router="a"})"), 200);
  EXPECT_EQ(samples.at(R"(penstock_cached_prompt_tokens_total{router="a"})"), 128);
  EXPECT_EQ(samples.at(R"(penstock_generated_tokens_total{router="a"})"), 20);
  EXPECT_EQ(samples.at(R"(penstock_prefix_cache_tokens_total{router="a",result="hit"})"), 128);
  EXPECT_EQ(samples.at(R"(penstock_prefix_cache_tokens_total{router="a",result="miss"})"), 72);
  EXPECT_EQ(samples.at(R"(penstock_prompt_tokens_total{router="b"})"), 0);
  EXPECT_EQ(samples.at(R"(penstock_tenant_tokens_total{tenant="acme",kind="prompt"})"), 200);
  EXPECT_EQ(samples.at(R"(penstock_tenant_tokens_total{tenant="acme",kind="generated"})"), 20);
}

TEST_F(PrometheusTelemetryTest, LatenciesFallIntoTheirBuckets) {
  telemetry_->OnRequestFinished(Request("acme", "a"));
  telemetry_->OnStep(Step("a", {2, 0, 0, 0}));
  const auto samples = Scrape();
  const auto bucket = [&](const std::string& name, const std::string& bound) {
    return samples.at(
        absl::StrCat("penstock_", name, "_seconds_bucket{router=\"a\",le=\"", bound, "\"}"));
  };
  EXPECT_EQ(bucket("request_duration", "0.5"), 0);
  EXPECT_EQ(bucket("request_duration", "1"), 1);
  EXPECT_EQ(bucket("request_duration", "600"), 1);
  EXPECT_EQ(bucket("time_to_first_token", "0.032"), 0);
  EXPECT_EQ(bucket("time_to_first_token", "0.064"), 1);
  EXPECT_EQ(bucket("queue_duration", "0.002"), 0);
  EXPECT_EQ(bucket("queue_duration", "0.004"), 1);
  EXPECT_EQ(bucket("prefill_duration", "60"), 1);
  EXPECT_EQ(bucket("inter_token_latency", "0.004"), 0);
  EXPECT_EQ(bucket("inter_token_latency", "0.006"), 1);
  EXPECT_EQ(bucket("inter_token_latency", "0.0005"), 0);
  EXPECT_EQ(bucket("inter_token_latency", "2.5"), 1);
  EXPECT_DOUBLE_EQ(samples.at(R"(penstock_time_to_first_token_seconds_sum{router="a"})"), 0.043);
  EXPECT_EQ(samples.at(R"(penstock_step_duration_seconds_count{phase="decode"})"), 1);
  EXPECT_EQ(samples.at(R"(penstock_step_duration_seconds_count{phase="mixed"})"), 0);
}

TEST_F(PrometheusTelemetryTest, RequestsThatNeverStartedHaveNoFirstToken) {
  RequestEvent request = Request("acme", "a");
  request.started = false;
  telemetry_->OnRequestFinished(request);
  const auto samples = Scrape();
  EXPECT_EQ(samples.at(R"(penstock_request_duration_seconds_count{router="a"})"), 1);
  EXPECT_EQ(samples.at(R"(penstock_queue_duration_seconds_count{router="a"})"), 0);
  EXPECT_EQ(samples.at(R"(penstock_time_to_first_token_seconds_count{router="a"})"), 0);
  EXPECT_EQ(samples.at(R"(penstock_prompt_tokens_total{router="a"})"), 0);
}

TEST_F(PrometheusTelemetryTest, StepsCountRowsRoutersAndPasses) {
  StepEvent mixed = Step("a", {2, 2, 2, 2});
  mixed.routers.push_back({.router = "b", .rows = 3, .router_time = absl::Milliseconds(1)});
  telemetry_->OnStep(mixed);
  telemetry_->OnStep(Step("a", {2, 0, 0, 0}));
  const auto samples = Scrape();
  EXPECT_EQ(samples.at(R"(penstock_router_tokens_total{router="a"})"), 5);
  EXPECT_EQ(samples.at(R"(penstock_router_tokens_total{router="b"})"), 3);
  EXPECT_DOUBLE_EQ(samples.at(R"(penstock_router_gpu_seconds_total{router="a"})"), 60e-6);
  EXPECT_DOUBLE_EQ(samples.at(R"(penstock_router_gpu_seconds_total{router="b"})"), 1e-3);
  EXPECT_EQ(samples.at(R"(penstock_step_routers_bucket{le="1"})"), 1);
  EXPECT_EQ(samples.at(R"(penstock_step_routers_bucket{le="2"})"), 2);
  EXPECT_EQ(samples.at("penstock_expert_passes_total"), 4);
}

TEST_F(PrometheusTelemetryTest, ShowsLoadReloadAndBuild) {
  Exercise();
  telemetry_->OnReload(false);
  auto samples = Scrape();
  EXPECT_EQ(samples.at("penstock_requests_running"), 2);
  EXPECT_EQ(samples.at("penstock_requests_waiting"), 1);
  EXPECT_EQ(samples.at(R"(penstock_kv_blocks{state="free"})"), 5);
  EXPECT_EQ(samples.at(R"(penstock_kv_blocks{state="active"})"), 3);
  EXPECT_EQ(samples.at(R"(penstock_kv_blocks{state="cached"})"), 1);
  EXPECT_EQ(samples.at("penstock_preemptions_total"), 7);
  EXPECT_EQ(samples.at("penstock_config_last_reload_successful"), 0);
  EXPECT_EQ(samples.at(R"(penstock_build_info{version="1.2.3"})"), 1);
  telemetry_->OnReload(true);
  EXPECT_EQ(Scrape().at("penstock_config_last_reload_successful"), 1);
}

TEST_F(PrometheusTelemetryTest, ShowsTheProcess) {
  const auto samples = Scrape();
  EXPECT_GT(samples.at("process_resident_memory_bytes"), 1 << 20);
  EXPECT_GT(samples.at("process_virtual_memory_bytes"),
            samples.at("process_resident_memory_bytes"));
  EXPECT_GE(samples.at("process_open_fds"), 3);
  EXPECT_GE(samples.at("process_max_fds"), samples.at("process_open_fds"));
  EXPECT_GE(samples.at("process_cpu_seconds_total"), 0);
  const double now = static_cast<double>(std::time(nullptr));
  EXPECT_NEAR(samples.at("process_start_time_seconds"), now, 3600);
}

TEST_F(PrometheusTelemetryTest, MeasuresEveryRouterAndLayer) {
  telemetry_->OnStep(Step("a", {10, 6, 4, 0}));
  const auto samples = Scrape();
  const auto gauge = [&](const std::string& name, int layer) {
    return samples.at(absl::StrCat(name, "{router=\"a\",layer=\"", layer, "\"}"));
  };
  EXPECT_NEAR(gauge("penstock_router_entropy_ratio", 1), 0.25, 1e-12);
  EXPECT_NEAR(gauge("penstock_expert_load_entropy_ratio", 1), 0.742737, 1e-6);
  EXPECT_NEAR(gauge("penstock_expert_imbalance_ratio", 1), 2, 1e-12);
  EXPECT_NEAR(gauge("penstock_expert_load_cv", 1), 0.721110, 1e-6);
  EXPECT_NEAR(gauge("penstock_expert_utilization_ratio", 1), 0.75, 1e-12);
  EXPECT_EQ(gauge("penstock_experts_idle", 1), 1);
  EXPECT_NEAR(gauge("penstock_router_topk_mass_ratio", 1), 0.5, 1e-12);
  EXPECT_EQ(gauge("penstock_experts_idle", 3), 2);
  EXPECT_EQ(samples.count(R"(penstock_experts_idle{router="b",layer="1"})"), 0);
}

TEST_F(PrometheusTelemetryTest, MeasuresLookAtTheLastMinute) {
  const std::string idle = R"(penstock_experts_idle{router="a",layer="1"})";
  telemetry_->OnStep(Step("a", {2, 0, 0, 0}));
  clock_.Advance(absl::Seconds(30));
  telemetry_->OnStep(Step("a", {0, 2, 2, 0}));
  EXPECT_EQ(Scrape().at(idle), 1);
  clock_.Advance(absl::Seconds(29));
  EXPECT_EQ(Scrape().at(idle), 1);
  clock_.Advance(absl::Seconds(1));
  EXPECT_EQ(Scrape().at(idle), 2);
  clock_.Advance(absl::Seconds(30));
  EXPECT_EQ(Scrape().count(idle), 0);
  // The buckets are used again, without what they held.
  telemetry_->OnStep(Step("a", {0, 0, 0, 2}));
  EXPECT_EQ(Scrape().at(idle), 3);
  EXPECT_EQ(ScrapeExperts().at(R"(penstock_expert_tokens_total{router="a",layer="1",expert="0"})"),
            2);
}

// Exact whatever the traffic: over a layer's experts, k times the rows.
TEST_F(PrometheusTelemetryTest, ExpertTokensSumToTopKTimesRows) {
  std::mt19937 random(3);
  std::map<std::string, std::int64_t> rows;
  for (int i = 0; i < 1000; ++i) {
    const std::string router = random() % 3 == 0 ? "a" : "b";
    std::vector<std::int64_t> slots(kExperts);
    const std::int64_t step_rows = 1 + random() % 300;
    for (std::int64_t slot = 0; slot < step_rows * kTopK; ++slot) ++slots[random() % kExperts];
    telemetry_->OnStep(Step(router, slots));
    rows[router] += step_rows;
    clock_.Advance(absl::Milliseconds(random() % 500));
  }
  const auto experts = ScrapeExperts();
  EXPECT_THAT(experts, SizeIs(2 * 2 * kExperts));
  for (const std::string router : {"a", "b"}) {
    for (const int layer : {1, 3}) {
      double sum = 0;
      for (int expert = 0; expert < kExperts; ++expert) {
        sum += experts.at(absl::StrCat("penstock_expert_tokens_total{router=\"", router,
                                       "\",layer=\"", layer, "\",expert=\"", expert, "\"}"));
      }
      EXPECT_EQ(sum, static_cast<double>(kTopK * rows[router])) << router << " layer " << layer;
    }
    EXPECT_EQ(Scrape().at("penstock_router_tokens_total{router=\"" + router + "\"}"), rows[router]);
  }
}

TEST_F(PrometheusTelemetryTest, UnloadedRoutersDisappearAndComeBackFromZero) {
  Exercise();
  telemetry_->OnRoutersLoaded({"b"});
  EXPECT_THAT(telemetry_->ServeMetrics(), Not(HasSubstr("router=\"a\"")));
  EXPECT_THAT(telemetry_->ServeExpertMetrics(), Not(HasSubstr("router=\"a\"")));
  EXPECT_EQ(Scrape().at(R"(penstock_router_tokens_total{router="b"})"), 2);

  // What still runs under it is counted nowhere but among the requests.
  telemetry_->OnStep(Step("a", {2, 0, 0, 0}));
  telemetry_->OnRequestFinished(Request("acme", "a"));
  EXPECT_THAT(telemetry_->ServeMetrics(), Not(HasSubstr("router=\"a\"")));
  EXPECT_EQ(Scrape().at(R"(penstock_requests_total{router="none",code="OK",api="grpc"})"), 1);

  telemetry_->OnRoutersLoaded({"b", "a"});
  EXPECT_EQ(Scrape().at(R"(penstock_router_tokens_total{router="a"})"), 0);
  EXPECT_EQ(Scrape().count(R"(penstock_experts_idle{router="a",layer="1"})"), 0);
  EXPECT_EQ(ScrapeExperts().at(R"(penstock_expert_tokens_total{router="a",layer="1",expert="0"})"),
            0);
}

TEST_F(PrometheusTelemetryTest, OnlyConfiguredTenantsHaveSeries) {
  telemetry_->OnThrottled("acme", "tokens_per_second");
  telemetry_->OnThrottled("mallory-1", "queue");
  telemetry_->OnThrottled("mallory-2", "queue");
  auto samples = Scrape();
  EXPECT_EQ(
      samples.at(R"(penstock_tenant_throttled_total{tenant="acme",reason="tokens_per_second"})"),
      1);
  EXPECT_EQ(samples.at(R"(penstock_tenant_throttled_total{tenant="other",reason="queue"})"), 2);

  telemetry_->SetTenants({"mallory-1"});
  EXPECT_THAT(telemetry_->ServeMetrics(), Not(HasSubstr("acme")));
  telemetry_->OnThrottled("mallory-1", "queue");
  EXPECT_EQ(Scrape().at(R"(penstock_tenant_throttled_total{tenant="mallory-1",reason="queue"})"),
            1);
}

TEST_F(PrometheusTelemetryTest, SnapshotHoldsTotalsAndWindow) {
  telemetry_->OnStep(Step("a", {10, 6, 4, 0}));
  clock_.Advance(absl::Seconds(61));
  telemetry_->OnStep(Step("a", {2, 2, 0, 0}));
  const auto snapshot = telemetry_->Snapshot();
  ASSERT_THAT(snapshot, SizeIs(2));
  EXPECT_EQ(snapshot[0].router, "a");
  ASSERT_THAT(snapshot[0].layers, SizeIs(2));
  const LayerExpertStats& layer = snapshot[0].layers[0];
  EXPECT_EQ(layer.layer, 1);
  EXPECT_EQ(layer.rows, 12);
  EXPECT_THAT(layer.slots, testing::ElementsAre(12, 8, 4, 0));
  EXPECT_GT(layer.entropy, 0);
  EXPECT_EQ(layer.window_rows, 2);
  EXPECT_THAT(layer.window_slots, testing::ElementsAre(2, 2, 0, 0));
  ASSERT_TRUE(layer.window.has_value());
  EXPECT_EQ(layer.window->idle, 2);
  EXPECT_FALSE(snapshot[1].layers[0].window.has_value());
}

TEST_F(PrometheusTelemetryTest, EventsAndScrapesMayRunAtOnce) {
  std::thread requests([&] {
    for (int i = 0; i < 2000; ++i) telemetry_->OnRequestFinished(Request("acme", "a"));
  });
  std::thread routers([&] {
    for (int i = 0; i < 200; ++i) {
      telemetry_->OnRoutersLoaded({"a"});
      telemetry_->OnRoutersLoaded({"a", "b"});
    }
  });
  std::thread scrapes([&] {
    for (int i = 0; i < 50; ++i) {
      EXPECT_FALSE(telemetry_->ServeMetrics().empty());
      EXPECT_FALSE(telemetry_->Snapshot().empty());
    }
  });
  for (int i = 0; i < 2000; ++i) telemetry_->OnStep(Step(i % 2 == 0 ? "a" : "b", {2, 2, 0, 0}));
  requests.join();
  routers.join();
  scrapes.join();
  EXPECT_EQ(Scrape().at(R"(penstock_requests_total{router="a",code="OK",api="grpc"})"), 2000);
  EXPECT_EQ(Scrape().at(R"(penstock_router_tokens_total{router="a"})"), 2000);
}

TEST(PrometheusTelemetryOptions, AreChecked) {
  const auto error = [](int num_experts, int top_k, std::vector<int> layers) {
    return std::string(PrometheusTelemetry::Create({.num_experts = num_experts,
                                                    .top_k = top_k,
                                                    .layers = std::move(layers),
                                                    .tenants = {},
                                                    .build = {}})
                           .status()
                           .message());
  };
  EXPECT_EQ(error(0, 1, {}), "num_experts: got 0, want at least 1");
  EXPECT_EQ(error(4, 5, {}), "top_k: got 5, want 1 to 4");
  EXPECT_EQ(error(4, 2, {1, 1}), "layers[1]: got 1, want indices from 0, in ascending order");
  EXPECT_EQ(error(4, 2, {0, 2}), "");
}

TEST(PrometheusTelemetryGpuTest, MemoryIsAskedAtEachScrape) {
  std::int64_t free = 7;
  const auto telemetry = PrometheusTelemetry::Create(
      {.num_experts = kExperts,
       .top_k = kTopK,
       .layers = {0},
       .tenants = {},
       .build = {},
       .gpu_memory = [&free] {
         return std::map<std::string, std::int64_t>{{"free", free}, {"weights", 40}};
       }});
  ASSERT_TRUE(telemetry.ok()) << telemetry.status();
  EXPECT_EQ(Samples((*telemetry)->ServeMetrics()).at(R"(penstock_gpu_memory_bytes{kind="free"})"),
            7);
  free = 5;
  const auto samples = Samples((*telemetry)->ServeMetrics());
  EXPECT_EQ(samples.at(R"(penstock_gpu_memory_bytes{kind="free"})"), 5);
  EXPECT_EQ(samples.at(R"(penstock_gpu_memory_bytes{kind="weights"})"), 40);
}

}  // namespace
}  // namespace penstock
