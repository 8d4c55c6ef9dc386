// Shadow routing on a real server with a GPU: every pair of routers is measured, and no answer
// changes.
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "clients/cpp/cli/http_get.h"
#include "clients/cpp/cli/metrics_page.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/e2e/gpu_server.h"

namespace penstock {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

client::MetricsPage Metrics(const ServerProcess& server, const std::string& path = "/metrics") {
  const auto text = client::HttpGet(server.ops(), path, absl::Seconds(10));
  EXPECT_TRUE(text.ok()) << text.status();
  const auto page = client::MetricsPage::Parse(*text);
  EXPECT_TRUE(page.ok()) << page.status();
  return *page;
}

// Tokens and log-probabilities of an answer under each router.
std::map<std::string, std::string> Answers(const ServerProcess& server,
                                           const std::vector<std::string>& routers) {
  std::map<std::string, std::string> answers;
  const auto client = server.Connect();
  for (const std::string& router : routers) {
    v1::GenerateRequest request;
    request.set_text("what the others would have done");
    request.set_router(router);
    request.mutable_sampling()->set_temperature(0);
    request.mutable_stopping()->set_max_new_tokens(40);
    request.mutable_stopping()->set_ignore_eos(true);
    request.mutable_response()->set_token_ids(true);
    request.mutable_response()->set_logprobs(0);
    request.mutable_cache()->set_bypass(true);
    const auto response = client->Generate(request);
    EXPECT_TRUE(response.ok()) << response.status();
    if (!response.ok()) continue;
    for (const v1::TokenScore& score : response->choices(0).scores())
      absl::StrAppend(&answers[router], score.ShortDebugString(), "\n");
  }
  return answers;
}

TEST(CudaShadowServerTest, EveryPairOfRoutersIsMeasuredAndNoAnswerChanges) {
  const std::vector<std::string>& kinds = GpuModel().kinds();
  std::map<std::string, std::string> plain;
  {
    ServerProcess server(GpuModel().Config(), OnGpu());
    plain = Answers(server, kinds);
    EXPECT_EQ(Metrics(server).Sum("penstock_shadow_steps_total", {{"result", "counted"}}), 0);
  }
  ServerProcess server(GpuModel().Config("experiments: {shadow: {share: 100%, max_cost: 100%}}\n"),
                       OnGpu());
  EXPECT_THAT(server.log(), Not(HasSubstr("no shadow routing")));
  // Steps are skipped until their cost is known, and where it is over that of the step itself.
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Answers(server, kinds), plain);
  const client::MetricsPage page = Metrics(server), slow = Metrics(server, "/metrics/experts");
  for (const std::string& router : kinds) {
    for (const std::string& shadow : kinds) {
      SCOPED_TRACE(router + " and " + shadow);
      const auto overlap =
          page.Sum("penstock_shadow_overlap_ratio", {{"router", router}, {"shadow", shadow}});
      const auto kl = page.Sum("penstock_shadow_kl_nats", {{"router", router}, {"shadow", shadow}});
      EXPECT_EQ(overlap.has_value(), router != shadow);
      EXPECT_EQ(kl.has_value(), router != shadow && router != "hash" && shadow != "hash");
      EXPECT_GE(overlap.value_or(0), 0);
      EXPECT_LE(overlap.value_or(0), 1);
      EXPECT_GE(kl.value_or(0), 0);
      EXPECT_EQ(slow.Sum("penstock_shadow_layer_entropy_ratio",
                         {{"router", router}, {"shadow", shadow}, {"layer", "0"}})
                    .has_value(),
                router != shadow);
    }
  }
  EXPECT_GT(page.Sum("penstock_shadow_steps_total", {{"result", "counted"}}).value_or(0), 0);
  EXPECT_GT(page.Sum("penstock_shadow_seconds_total").value_or(0), 0);
  EXPECT_EQ(page.Sum("penstock_shadow_failed_rows_total").value_or(0), 0);
}

}  // namespace
}  // namespace penstock
