// Shadow routing and live paired scoring on a real server: what they report, and that no request
// notices them.
#include <signal.h>

#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "clients/cpp/cli/http_get.h"
#include "clients/cpp/cli/metrics_page.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/server_process.h"

namespace penstock {
namespace {

using ::testing::HasSubstr;

client::MetricsPage Metrics(const ServerProcess& server, const std::string& path = "/metrics") {
  const auto text = client::HttpGet(server.ops(), path, absl::Seconds(10));
  EXPECT_TRUE(text.ok()) << text.status();
  const auto page = client::MetricsPage::Parse(*text);
  EXPECT_TRUE(page.ok()) << page.status();
  return *page;
}

double Value(const ServerProcess& server, const std::string& series,
             const std::vector<std::pair<std::string, std::string>>& labels = {}) {
  return Metrics(server).Sum(series, {labels.begin(), labels.end()}).value_or(-1);
}

v1::GenerateRequest Request(const std::string& router, const std::string& user = "") {
  v1::GenerateRequest request;
  request.set_text("what the others would have done");
  request.set_router(router);
  request.mutable_unit()->set_user(user);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_new_tokens(8);
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_response()->set_token_ids(true);
  request.mutable_response()->set_logprobs(0);
  return request;
}

std::string Exactly(const v1::GenerateResponse& response) {
  std::string text;
  for (const v1::TokenScore& score : response.choices(0).scores())
    absl::StrAppend(&text, score.ShortDebugString(), "\n");
  return text;
}

// Of `router`, or of all.
std::size_t PairsOf(const client::MetricsPage& page, const std::string& router = "") {
  const std::string series = "penstock_shadow_overlap_ratio";
  std::size_t pairs = 0;
  for (const std::string& serving : page.LabelValues(series, "router")) {
    if (!router.empty() && serving != router) continue;
    for (const std::string& shadow : page.LabelValues(series, "shadow"))
      pairs += page.Sum(series, {{"router", serving}, {"shadow", shadow}}).has_value();
  }
  return pairs;
}

TEST(ShadowTest, EveryPairOfRoutersIsMeasuredAndNoAnswerChanges) {
  const TinyModel& model = TinyModel::Get();
  std::map<std::string, std::string> plain;
  {
    ServerProcess server(model.Config());
    const auto client = server.Connect();
    for (const std::string& kind : model.kinds())
      plain[kind] = Exactly(*client->Generate(Request(kind)));
    EXPECT_EQ(Value(server, "penstock_shadow_steps_total", {{"result", "counted"}}), 0)
        << "it is off unless configured";
  }
  ServerProcess server(model.Config("experiments: {shadow: {share: 100%, max_cost: 100%}}\n"));
  const auto client = server.Connect();
  // Five other routers take longer than a tiny step does: some steps are skipped for their cost, so
  // each router is asked until it has met all others.
  for (const std::string& kind : model.kinds()) {
    for (int request = 0; request < 1000; ++request) {
      const auto response = client->Generate(Request(kind));
      ASSERT_TRUE(response.ok()) << response.status();
      EXPECT_EQ(Exactly(*response), plain[kind]) << kind;
      if (PairsOf(Metrics(server), kind) == model.kinds().size() - 1) break;
    }
  }
  const client::MetricsPage page = Metrics(server), slow = Metrics(server, "/metrics/experts");
  for (const std::string& router : model.kinds()) {
    for (const std::string& shadow : model.kinds()) {
      const auto overlap =
          page.Sum("penstock_shadow_overlap_ratio", {{"router", router}, {"shadow", shadow}});
      const auto kl = page.Sum("penstock_shadow_kl_nats", {{"router", router}, {"shadow", shadow}});
      EXPECT_EQ(overlap.has_value(), router != shadow) << router << " and " << shadow;
      EXPECT_EQ(kl.has_value(), router != shadow && router != "hash" && shadow != "hash");
      if (overlap) {
        EXPECT_GE(*overlap, 0);
        EXPECT_LE(*overlap, 1);
        EXPECT_TRUE(slow.Sum("penstock_shadow_layer_imbalance_ratio",
                             {{"router", router}, {"shadow", shadow}, {"layer", "0"}}));
      }
      EXPECT_GE(kl.value_or(0), 0);
    }
  }
  EXPECT_GT(Value(server, "penstock_shadow_seconds_total"), 0);
}

TEST(ShadowTest, AReloadTurnsItOn) {
  const TinyModel& model = TinyModel::Get();
  ServerProcess server(model.Config());
  const auto client = server.Connect();
  ASSERT_TRUE(client->Generate(Request("linear")).ok());
  EXPECT_EQ(Value(server, "penstock_shadow_steps_total", {{"result", "counted"}}), 0);
  std::ofstream(server.config_file())
      << model.Config("experiments: {shadow: {share: 100%, max_cost: 100%, routers: [mlp]}}\n");
  server.Signal(SIGHUP);
  ASSERT_TRUE(server.WaitForLog(" reloaded "));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(client->Generate(Request("linear")).ok());
  EXPECT_GT(Value(server, "penstock_shadow_steps_total", {{"result", "counted"}}), 0);
  EXPECT_EQ(PairsOf(Metrics(server)), 1u) << "only the named router is asked";
}

std::string Experiment(const std::string& paired, bool allowed) {
  return absl::StrCat(R"(
experiments:
  traffic_salt: paired
  paired_scoring: )",
                      paired, R"(
  list:
    - name: arms
      audience: {tenants: [acme]}
      unit: user
      exposure: 100%
      arms: [{name: control, router: linear, share: 5000}, {name: other, router: mlp, share: 5000}]
      control: control
      primary: {metric: paired_logprob, better: higher, min_effect: 0.005}
tenants:
  - {name: acme, paired_scoring: )",
                      allowed ? "true" : "false", "}\n");
}

TEST(PairedScoringTest, ScoresTextsOfTenantsThatAllowItAndIsNoTraffic) {
  ServerProcess server(TinyModel::Get().Config(
      Experiment("{share: 100%, max_cost: 100%, max_waiting: 1000}", /*allowed=*/true)));
  const auto client = server.Connect("acme");
  constexpr int kRequests = 20;
  for (int i = 0; i < kRequests; ++i) {
    const auto response = client->Generate(Request("", absl::StrCat("user ", i)));
    ASSERT_TRUE(response.ok()) << response.status();
    EXPECT_EQ(response->assignment().reason(), "experiment");
  }
  // They are scored while nobody asks for anything.
  while (Value(server, "penstock_paired_texts_total", {{"result", "scored"}}) < kRequests) {
    ASSERT_LE(Metrics(server).Sum("penstock_paired_texts_total", {}).value_or(0), kRequests);
  }
  EXPECT_EQ(Metrics(server).Sum("penstock_paired_texts_total", {}), kRequests);
  const int rows = 31 + 8;  // a token a byte, and the answer
  EXPECT_EQ(Value(server, "penstock_paired_rows_total"), kRequests * rows);
  EXPECT_EQ(Metrics(server).Sum("penstock_requests_total", {}), kRequests);
  EXPECT_EQ(Metrics(server).Sum("penstock_experiment_assignments_total", {}), kRequests);
  EXPECT_EQ(Metrics(server).Sum("penstock_tenant_tokens_total", {{"kind", "generated"}}),
            kRequests * 8);
  const double routed = *Metrics(server).Sum("penstock_router_tokens_total", {});
  EXPECT_LE(routed, kRequests * rows) << "rows that were scored again count under no router";
  EXPECT_THAT(server.log(), ::testing::Not(HasSubstr("what the others")));
}

TEST(PairedScoringTest, TakesNoTextOfOtherTenants) {
  ServerProcess server(
      TinyModel::Get().Config(Experiment("{share: 100%, max_cost: 100%}", /*allowed=*/false)));
  const auto client = server.Connect("acme");
  for (int i = 0; i < 5; ++i) {
    const auto response = client->Generate(Request("", absl::StrCat("user ", i)));
    ASSERT_TRUE(response.ok()) << response.status();
    EXPECT_EQ(response->assignment().reason(), "experiment");
  }
  EXPECT_FALSE(Metrics(server).Sum("penstock_paired_texts_total", {}).has_value());
  EXPECT_EQ(Value(server, "penstock_paired_rows_total"), 0);
}

TEST(PairedScoringTest, DoesNotHoldUpAShutdown) {
  ServerProcess server(TinyModel::Get().Config(
      Experiment("{share: 100%, max_cost: 100%, max_waiting: 1000}", /*allowed=*/true)));
  const auto client = server.Connect("acme");
  for (int i = 0; i < 30; ++i)
    ASSERT_TRUE(client->Generate(Request("", absl::StrCat("user ", i))).ok());
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0);
  EXPECT_THAT(server.log(), HasSubstr("stopped"));
}

}  // namespace
}  // namespace penstock
