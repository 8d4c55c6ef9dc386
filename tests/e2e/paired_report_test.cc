// Live paired scoring from requests to what is made of it: the report's values, and a halt.
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "clients/cpp/cli/http_get.h"
#include "clients/cpp/cli/metrics_page.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/e2e/damaged_router.h"
#include "tests/e2e/server_process.h"

namespace penstock {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// Every request is a unit, and every text is scored.
std::string Config(const std::string& guardrails) {
  return TinyModel::Get().Config() + absl::StrCat(R"(    - {name: collapsed, path: collapsed}
tenants: [{name: default, paired_scoring: true}]
experiments:
  traffic_salt: t
  paired_scoring: {share: 100%, max_cost: 100%, max_waiting: 4096}
  list:
    - name: trial
      audience: {tenants: [default]}
      unit: request
      exposure: 100%
      arms: [{name: control, router: linear, share: 5000}, {name: new, router: collapsed, share: 5000}]
      control: control
      primary: {metric: paired_logprob, better: higher, min_effect: 0.005}
      guardrails: )",
                                                  guardrails, "\n");
}

// So many requests' ids that `arm` gets.
std::vector<std::string> UnitsOf(const std::string& arm, int count, client::Client* client) {
  std::vector<std::string> ids;
  for (int i = 0; static_cast<int>(ids.size()) < count; ++i) {
    v1::AssignRequest request;
    request.set_request_id(absl::StrCat("unit-", i));
    const auto response = client->Assign(request);
    EXPECT_TRUE(response.ok()) << response.status();
    if (!response.ok()) break;
    if (response->arm() == arm) ids.push_back(request.request_id());
  }
  return ids;
}

v1::GenerateRequest Request(const std::string& id) {
  v1::GenerateRequest request;
  request.set_request_id(id);
  request.set_text("text of " + id);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stopping()->set_max_new_tokens(8);
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_response()->set_token_ids(true);
  return request;
}

// Blocks until so many texts were scored; none may be dropped.
void WaitForTexts(const ServerProcess& server, double count) {
  std::optional<double> scored;
  while (scored.value_or(0) < count) {
    const auto text = client::HttpGet(server.ops(), "/metrics", absl::Seconds(10));
    ASSERT_TRUE(text.ok()) << text.status();
    const auto page = client::MetricsPage::Parse(*text);
    ASSERT_TRUE(page.ok()) << page.status();
    scored = page->Sum("penstock_paired_texts_total", {{"result", "scored"}});
    ASSERT_EQ(page->Sum("penstock_paired_texts_total", {}), scored) << "a text was dropped";
  }
}

// Σ log-probability of `answer` after `prompt` under a router.
double ScoreOf(client::Client* client, const std::string& router, const std::string& prompt,
               const v1::Choice& answer) {
  v1::TokenizeRequest tokenize;
  tokenize.set_text(prompt);
  const auto tokens = client->Tokenize(tokenize);
  EXPECT_TRUE(tokens.ok()) << tokens.status();
  v1::ScoreRequest request;
  request.set_router(router);
  *request.mutable_token_ids()->mutable_ids() = tokens->ids();
  request.mutable_token_ids()->mutable_ids()->MergeFrom(answer.token_ids());
  request.set_skip_tokens(tokens->ids_size());
  const auto scored = client->Score(request);
  EXPECT_TRUE(scored.ok()) << scored.status();
  return scored.ok() ? scored->total_logprob() : 0;
}

TEST(PairedReportTest, TheReportHasTheDifferencesThatScoringTheTextsGives) {
  WriteCollapsedRouter();
  ServerProcess server(Config("[]"));
  const auto client = server.Connect();
  double difference = 0, tokens = 0;
  int texts = 0;
  for (const std::string arm : {"control", "new"}) {
    for (const std::string& id : UnitsOf(arm, 60, client.get())) {
      const auto response = client->Generate(Request(id));
      ASSERT_TRUE(response.ok()) << response.status();
      ASSERT_EQ(response->assignment().arm(), arm);
      const v1::Choice& answer = response->choices(0);
      difference += ScoreOf(client.get(), "collapsed", Request(id).text(), answer) -
                    ScoreOf(client.get(), "linear", Request(id).text(), answer);
      tokens += answer.token_ids_size();
      ++texts;
    }
  }
  WaitForTexts(server, texts);

  const auto report = client->GetExperimentReport("trial");
  ASSERT_TRUE(report.ok()) << report.status();
  const v1::MetricReport& paired = report->arms(1).metrics(0);
  EXPECT_EQ(paired.metric(), "paired_logprob");
  EXPECT_TRUE(paired.primary());
  EXPECT_EQ(paired.units(), texts) << "of both arms, each once";
  EXPECT_NEAR(paired.value(), difference / tokens, 1e-5);
  EXPECT_EQ(paired.comparison().difference(), paired.value());
  EXPECT_LT(paired.comparison().lower(), paired.comparison().upper());
  for (const v1::ArmReport& arm : report->arms()) {
    EXPECT_EQ(arm.texts_scored(), texts / 2) << arm.name();
    EXPECT_EQ(arm.texts_dropped(), 0);
  }
  EXPECT_EQ(report->arms(0).text_tokens() + report->arms(1).text_tokens(), tokens);

  const ProgramResult text =
      RunProgram("penstock-cli", {"--server", server.grpc(), "report", "trial"});
  EXPECT_EQ(text.exit_code, 0) << text.output;
  EXPECT_THAT(text.output, AllOf(HasSubstr("paired_logprob (nats) · primary"),
                                 HasSubstr("texts that each arm wrote")));
  const ProgramResult json =
      RunProgram("penstock-cli", {"--server", server.grpc(), "report", "trial", "--json"});
  const nlohmann::json parsed = nlohmann::json::parse(json.output, nullptr, false);
  ASSERT_FALSE(parsed.is_discarded()) << json.output;
  const nlohmann::json& shown = parsed.at("arms").at(1).at("metrics").at(0);
  EXPECT_EQ(shown.at("units"), std::to_string(texts));
  EXPECT_EQ(shown.at("comparison").at("difference").get<double>(),
            paired.comparison().difference());
}

TEST(PairedReportTest, WithoutATenantThatAllowsItTheReportSaysSo) {
  std::string config = Config("[]");
  const std::string opt_in = ", paired_scoring: true";
  config.erase(config.find(opt_in), opt_in.size());
  WriteCollapsedRouter();
  ServerProcess server(config);
  ASSERT_TRUE(server.Connect()->Generate(Request("one")).ok());
  const ProgramResult text =
      RunProgram("penstock-cli", {"--server", server.grpc(), "report", "trial"});
  EXPECT_EQ(text.exit_code, 0) << text.output;
  EXPECT_THAT(text.output, AllOf(HasSubstr("since no tenant of the\naudience (default)"),
                                 Not(HasSubstr("too few units"))));
  const ProgramResult merged =
      RunProgram("penstock", {"report", "trial", "--server", server.grpc(), "--json"});
  EXPECT_THAT(merged.output,
              HasSubstr("new is not judged: paired_logprob is not measured, since no tenant of the "
                        "audience (default) has paired_scoring: true."));
}

TEST(PairedReportTest, ADropInPairedLogprobHaltsTheDamagedRoutersArm) {
  WriteCollapsedRouter();
  ServerProcess server(
      Config("[{metric: paired_logprob, min: -0.001, window: 10m, min_requests: 20}]"));
  const auto client = server.Connect();
  const std::string unit = UnitsOf("new", 1, client.get()).at(0);
  // Texts that control wrote: under a router that decides otherwise they are less likely.
  for (const std::string& id : UnitsOf("control", 20, client.get())) {
    ASSERT_TRUE(client->Generate(Request(id)).ok());
  }
  ASSERT_TRUE(server.WaitForLog("guardrail halted an arm")) << server.log();
  EXPECT_THAT(server.log(), HasSubstr("experiment=trial arm=new metric=paired_logprob value=-"));

  const auto after = client->Generate(Request(unit));
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(after->assignment().reason(), "halted");
  EXPECT_EQ(after->assignment().router(), "linear");
  const auto list = client->ListExperiments();
  ASSERT_TRUE(list.ok()) << list.status();
  const v1::ArmHalt& halt = list->experiments(0).arms(1).halt();
  EXPECT_EQ(halt.metric(), "paired_logprob");
  EXPECT_LT(halt.value(), -0.001);
  EXPECT_THAT(halt.reason(), HasSubstr("over 20 texts"));

  const auto report = client->GetExperimentReport("trial");
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(report->arms(1).halted(),
              AllOf(HasSubstr("by guardrail"), HasSubstr("paired_logprob")));
  EXPECT_NEAR(report->arms(1).metrics(0).value(), halt.value(), 1e-9)
      << "the guardrail and the report saw the same texts";
  const ProgramResult text =
      RunProgram("penstock-cli", {"--server", server.grpc(), "report", "trial"});
  EXPECT_THAT(text.output,
              AllOf(HasSubstr("Arm new is HALTED"), HasSubstr("paired_logprob is\n-0.")));
}

}  // namespace
}  // namespace penstock
