// An experiment on a real server, from traffic to its report.
#include <algorithm>
#include <csignal>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/e2e/aa_reports.h"
#include "tests/e2e/server_process.h"
#include "tests/support/temporary_folder.h"

namespace penstock {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Json = nlohmann::json;

TEST(ExperimentReportTest, AnAaRunSaysNoDifference) {
  TemporaryFolder folder;
  const std::string log = folder / "exposures.jsonl";
  // By a measure that no other load on the machine changes; its interval is some ±0.13 here.
  const std::string config =
      absl::StrReplaceAll(SameArms("  exposure_log: " + log + "\n"),
                          {{"metric: latency, better: lower, min_effect: 30",
                            "metric: repetition, better: lower, min_effect: 0.25"}});
  ServerProcess server(TinyModel::Get().Config(config));
  SendTraffic(server, 300, "1");

  const ProgramResult text =
      RunProgram("penstock-cli", {"--server", server.grpc(), "report", "aa"});
  EXPECT_EQ(text.exit_code, 0) << text.output;
  EXPECT_THAT(text.output, AllOf(HasSubstr("by request"), HasSubstr("as it should be"),
                                 HasSubstr("repetition · primary"), HasSubstr("arXiv:2103")));

  const Json report = ReportOf("penstock-cli", {"--server", server.grpc()});
  EXPECT_EQ(report.at("sample_ratio_alarm"), false);
  EXPECT_THAT(report.at("summary").get<std::string>(),
              HasSubstr("b differs from control by less than the smallest effect that matters in "
                        "repetition (0.25): no difference that matters"));
  const Json& primary = MetricOf(report, "b", "repetition").at("comparison");
  EXPECT_LT(primary.at("lower").get<double>(), 0);
  EXPECT_GT(primary.at("upper").get<double>(), 0);
  EXPECT_EQ(Units(report, "a") + Units(report, "b"), 300);
  EXPECT_EQ(report.at("arms").at(1).at("verdict"), "no_larger_difference");
  for (const Json& metric : report.at("arms").at(1).at("metrics")) {
    EXPECT_GT(metric.value("adjusted_p", 1.0), 0.001) << metric;
  }
  const std::string page = folder / "report.html";
  EXPECT_EQ(RunProgram("penstock-cli", {"--server", server.grpc(), "report", "aa", "--html", page})
                .exit_code,
            0);
  std::ostringstream html;
  html << std::ifstream(page).rdbuf();
  EXPECT_THAT(html.str(), AllOf(HasSubstr("<svg"), HasSubstr("no difference that matters")));

  // The log has a line a request once the server has ended, and no text.
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0);
  std::ifstream lines(log);
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const Json entry = Json::parse(line);
    EXPECT_EQ(entry.at("experiment"), "aa");
    EXPECT_EQ(entry.at("unit_hash").get<std::string>().size(), 16u);
    EXPECT_EQ(entry.at("measures").at("code"), "OK");
    EXPECT_FALSE(entry.contains("text"));
  }
  EXPECT_EQ(count, 300);
}

TEST(ExperimentReportTest, AnOutcomeIsJoinedToItsRequest) {
  ServerProcess server(TinyModel::Get().Config(SameArms()));
  EXPECT_EQ(RunProgram("penstock-cli", {"--server", server.grpc(), "generate", "--request-id",
                                        "req-1", "--max-tokens", "2", "abc"})
                .exit_code,
            0);
  const auto report = [&](const std::string& id) {
    return RunProgram("penstock-cli", {"--server", server.grpc(), "outcome", "click", "1",
                                       "--request-id", id, "--key", "k-" + id})
        .output;
  };
  EXPECT_THAT(report("req-1"), HasSubstr("joined to aa"));
  EXPECT_THAT(report("req-1"), HasSubstr("counted once"));
  EXPECT_THAT(report("req-2"), HasSubstr("joined to no experiment"));
}

TEST(ExperimentReportTest, UnderSwitchbackSlicesOfTimeAreTheUnits) {
  ServerProcess server(TinyModel::Get().Config(
      "experiments:\n  traffic_salt: t\n  list:\n  - {name: aa, audience: {tenants: [default]}, "
      "unit: user, exposure: 100%, mode: switchback, switchback: {slice: 1s, burn_in: 100ms}, "
      "arms: [{name: a, router: linear, share: 5000}, {name: b, router: mlp, share: 5000}], "
      "control: a, primary: {metric: latency, better: lower, min_effect: 1}}\n"));
  const auto client = server.Connect();
  // One user goes from arm to arm, as time does.
  v1::GenerateRequest request;
  request.set_text("abc");
  request.mutable_unit()->set_user("one");
  request.mutable_stopping()->set_max_new_tokens(4);
  std::map<std::string, std::string> routers;  // by arm
  Json report;
  // Of the arm whose routers were measured in fewer slices. The server may look at them too late
  // for one: a look that reaches beyond its slice counts for none.
  const auto measured_slices = [&report] {
    return std::min(UnitsOf(report, "a", "router_gpu_time"),
                    UnitsOf(report, "b", "router_gpu_time"));
  };
  // Which arm a slice has is drawn by its number.
  do {
    for (int i = 0; i < 50; ++i) {
      const auto response = client->Generate(request);
      ASSERT_TRUE(response.ok()) << response.status();
      ASSERT_EQ(response->assignment().reason(), "switchback");
      routers[response->assignment().arm()] = response->assignment().router();
    }
    report = ReportOf("penstock-cli", {"--server", server.grpc()});
    const std::int64_t slices = Units(report, "a") + Units(report, "b");
    ASSERT_TRUE(routers.size() == 2 || slices < 60) << "one arm never got a slice";
    ASSERT_LT(slices, 600) << "the routers were looked at in no slice of an arm";
  } while (measured_slices() < 2);
  EXPECT_EQ(routers, (std::map<std::string, std::string>{{"a", "linear"}, {"b", "mlp"}}));
  EXPECT_EQ(report.at("unit"), "slice");
  for (const std::string arm : {"a", "b"}) {
    // Routers are measured by slice, so their measures are compared like any other.
    const Json& time = MetricOf(report, arm, "router_gpu_time");
    EXPECT_LE(UnitsOf(report, arm, "router_gpu_time"), Units(report, arm));
    EXPECT_GT(time.at("value").get<double>(), 0) << arm;
    EXPECT_EQ(time.value("note", "").find("switchback"), std::string::npos);
  }
  std::int64_t left_out = 0;
  for (const Json& arm : report.at("arms")) left_out += std::stoll(arm.value("left_out", "0"));
  EXPECT_GT(left_out, 0) << "requests of the burn-in";
}

TEST(ExperimentReportTest, AReportOfNothingSaysWhatThereIs) {
  ServerProcess server(TinyModel::Get().Config(SameArms()));
  const ProgramResult unknown =
      RunProgram("penstock-cli", {"--server", server.grpc(), "report", "bb"});
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_THAT(unknown.output, HasSubstr("experiment: got bb, running now: aa"));
  EXPECT_EQ(RunProgram("penstock", {"report", "aa"}).exit_code, 2);
  EXPECT_EQ(RunProgram("penstock", {"report", "aa", "--prometheus", "ftp://x", "--config",
                                    server.config_file()})
                .exit_code,
            1);
  const Json empty = ReportOf("penstock-cli", {"--server", server.grpc()});
  EXPECT_THAT(empty.at("summary").get<std::string>(), HasSubstr("0 requests have entered"));
}

}  // namespace
}  // namespace penstock
