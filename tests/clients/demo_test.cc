#include <gmock/gmock.h>

#include <sstream>

#include "clients/cpp/cli/command_line.h"
#include "clients/cpp/cli/demo_figures.h"
#include "clients/cpp/cli/http_get.h"
#include "clients/cpp/cli/metrics_page.h"
#include "tests/support/canned_http_server.h"
#include "tests/support/fake_server.h"

namespace penstock::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

MetricsPage Parse(const std::string& text) {
  auto page = MetricsPage::Parse(text);
  EXPECT_TRUE(page.ok()) << page.status();
  return *std::move(page);
}

TEST(MetricsPage, ReadsValuesLabelsAndEscapes) {
  const MetricsPage page = Parse(
      "# HELP a_total what\n# TYPE a_total counter\n"
      "a_total{router=\"x\\\"\\\\y\\n\", layer=\"0\"} 1.5e3 1700000000\n"
      "a_total{router=\"b\",layer=\"1\",} 2\n"
      "plain +Inf\nnothing NaN\n\n");
  EXPECT_EQ(page.Sum("a_total"), 1502);
  EXPECT_EQ(page.Mean("a_total"), 751);
  EXPECT_EQ(page.Sum("a_total", {{"router", "x\"\\y\n"}}), 1500);
  EXPECT_THAT(page.LabelValues("a_total", "layer"), ElementsAre("0", "1"));
  EXPECT_EQ(page.Sum("a_total", {{"router", "c"}}), std::nullopt);
  EXPECT_EQ(page.Sum("nothing"), std::nullopt);
}

TEST(MetricsPage, NamesTheLineThatIsNone) {
  for (const char* bad : {"ok 1\na{b=\"c} 1\n", "ok 1\na{b} 1\n", "ok 1\na one\n", "ok 1\n= 1\n"}) {
    const auto page = MetricsPage::Parse(bad);
    EXPECT_EQ(page.status().code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(page.status().message()), HasSubstr("line 2")) << bad;
  }
}

constexpr char kBefore[] = R"(penstock_generated_tokens_total{router="mlp"} 10
penstock_inter_token_latency_seconds_sum{router="mlp"} 5
penstock_inter_token_latency_seconds_count{router="mlp"} 10
penstock_step_routers_bucket{le="1"} 10
penstock_step_routers_bucket{le="2"} 10
penstock_step_routers_bucket{le="+Inf"} 10
penstock_step_routers_count 10
penstock_expert_passes_total 240
)";
constexpr char kAfter[] = R"(penstock_generated_tokens_total{router="mlp"} 58
penstock_inter_token_latency_seconds_sum{router="mlp"} 6.2
penstock_inter_token_latency_seconds_count{router="mlp"} 58
penstock_time_to_first_token_seconds_sum{router="mlp"} 0.04
penstock_time_to_first_token_seconds_count{router="mlp"} 1
penstock_router_entropy_ratio{router="mlp",layer="0"} 0.8
penstock_router_entropy_ratio{router="mlp",layer="1"} 0.9
penstock_expert_imbalance_ratio{router="mlp",layer="0"} 1.5
penstock_experts_idle{router="mlp",layer="0"} 0
penstock_experts_idle{router="mlp",layer="1"} 1
penstock_step_routers_bucket{le="1"} 13
penstock_step_routers_bucket{le="2"} 15
penstock_step_routers_bucket{le="+Inf"} 60
penstock_step_routers_count 60
penstock_expert_passes_total 1440
penstock_router_tokens_total{router="mlp"} 100
)";

TEST(DemoFigures, AreDifferencesOfCountersAndMeansOverLayers) {
  const RouterFigures figures = ReadRouterFigures(Parse(kBefore), Parse(kAfter), "mlp");
  EXPECT_EQ(figures.tokens, 48);
  EXPECT_NEAR(figures.tokens_per_second.value(), 40, 1e-9);
  EXPECT_NEAR(figures.first_token_seconds.value(), 0.04, 1e-12);
  EXPECT_NEAR(figures.entropy_ratio.value(), 0.85, 1e-12);
  EXPECT_EQ(figures.imbalance_ratio, 1.5);
  EXPECT_EQ(figures.idle_experts, 0.5);
  EXPECT_THAT(
      RouterFiguresTable({figures}),
      HasSubstr("mlp         48   40.0              40    0.850       1.50           0.5\n"));
}

TEST(DemoFigures, OfARouterThatIsNotThereAreUnset) {
  const RouterFigures figures = ReadRouterFigures(Parse(kBefore), Parse(kAfter), "hash");
  EXPECT_EQ(figures.tokens, std::nullopt);
  EXPECT_THAT(RouterFiguresTable({figures}), HasSubstr("–"));
}

TEST(DemoFigures, StepsWithAllRoutersComeFromCumulativeBuckets) {
  const StepFigures three = ReadStepFigures(Parse(kBefore), Parse(kAfter), 3);
  EXPECT_EQ(three.steps, 50);
  EXPECT_EQ(three.steps_with_all, 45);
  EXPECT_EQ(three.expert_passes_per_step, 24);
  EXPECT_EQ(ReadStepFigures(Parse(kBefore), Parse(kAfter), 2).steps_with_all, 47);
  // No bucket ends at 5.
  EXPECT_EQ(ReadStepFigures(Parse(kBefore), Parse(kAfter), 6).steps_with_all, std::nullopt);
}

TEST(DemoFigures, SlotsOfALayerAreTopKTimesTokens) {
  const MetricsPage experts =
      Parse(R"(penstock_expert_tokens_total{router="mlp",layer="0",expert="0"} 150
penstock_expert_tokens_total{router="mlp",layer="0",expert="1"} 50
penstock_expert_tokens_total{router="mlp",layer="1",expert="0"} 199
)");
  const SlotCheck check = CheckSlots(Parse(kAfter), experts, {"mlp"}, 2);
  EXPECT_EQ(check.layers, 2);
  EXPECT_EQ(check.exact, 1);
}

TEST(HttpGet, NamesTheUrlWhenNothingAnswers) {
  const auto page = HttpGet("127.0.0.1:1", "/metrics", absl::Seconds(5));
  EXPECT_EQ(page.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(page.status().message()), HasSubstr("http://127.0.0.1:1/metrics"));
  EXPECT_EQ(HttpGet("localhost", "/", absl::Seconds(1)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(HttpGet, ReturnsTheBodyOrTheStatus) {
  const std::map<std::string, std::string> pages = {{"/metrics", "a 1\n"}};
  const CannedHttpServer server(pages);
  const auto page = HttpGet(server.address(), "/metrics", absl::Seconds(10));
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(*page, "a 1\n");
  const auto missing = HttpGet(server.address(), "/other", absl::Seconds(10));
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kUnknown);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("/other: HTTP status 404"));
}

TEST(Demo, ShowsAnswersFiguresAndHowToGoOn) {
  FakeServer grpc;
  const std::map<std::string, std::string> pages = {
      {"/metrics", std::string("penstock_generated_tokens_total{router=\"linear\"} 3\n") + kAfter},
      {"/metrics/experts",
       "penstock_expert_tokens_total{router=\"mlp\",layer=\"0\",expert=\"0\"} 200\n"}};
  const CannedHttpServer ops(pages);
  std::istringstream in;
  std::ostringstream out, err;
  Terminal terminal{.in = in, .out = out, .err = err};
  // No tokens: the canned counters can't follow.
  const int code = RunCli(
      {"demo", "--server", grpc.address(), "--ops", ops.address(), "--max-tokens", "0", "Why?"},
      terminal);
  ASSERT_EQ(code, 0) << err.str();
  const std::string text = out.str();
  EXPECT_THAT(text, HasSubstr("fake under 2 routers at once: Why?"));
  EXPECT_THAT(text, HasSubstr("── linear ──"));
  EXPECT_THAT(text, HasSubstr("── mlp ──"));
  EXPECT_THAT(text, HasSubstr("From http://" + ops.address() + "/metrics"));
  EXPECT_THAT(text, HasSubstr("in 1 of 1 (router, layer) pairs"));
  EXPECT_THAT(text, HasSubstr("grpcurl -plaintext"));
  EXPECT_THAT(text, HasSubstr("penstock-cli --server " + grpc.address() + " chat"));
  const auto requests = grpc.inference.requests();
  ASSERT_EQ(requests.size(), 2U);
  EXPECT_EQ(requests[0].chat().messages(0).content(), "Why?");
  EXPECT_EQ(requests[0].sampling().temperature(), 0);
}

TEST(Demo, FailsWithTheUrlWhereMetricsAreOff) {
  FakeServer grpc;
  std::istringstream in;
  std::ostringstream out, err;
  Terminal terminal{.in = in, .out = out, .err = err};
  EXPECT_EQ(RunCli({"demo", "--server", grpc.address(), "--ops", "127.0.0.1:1"}, terminal), 1);
  EXPECT_THAT(err.str(), HasSubstr("http://127.0.0.1:1/metrics"));
}

}  // namespace
}  // namespace penstock::client
