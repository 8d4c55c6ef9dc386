#include "tests/e2e/aa_reports.h"

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace penstock {

using Json = nlohmann::json;

std::string SameArms(const std::string& more) {
  return absl::StrCat(
      "experiments:\n  traffic_salt: t\n", more,
      "  list:\n  - {name: aa, audience: {tenants: [default]}, unit: request, exposure: 100%, "
      "arms: [{name: a, router: linear, share: 5000}, {name: b, router: linear, share: 5000}], "
      "control: a, primary: {metric: latency, better: lower, min_effect: 30}, "
      "outcomes: [click], outcome_window: 1h}\n");
}

void SendTraffic(const ServerProcess& server, int requests, const std::string& seed) {
  const ProgramResult result =
      RunProgram("penstock-bench", {"--server", server.grpc(), "--concurrency", "8", "--requests",
                                    std::to_string(requests), "--prompt-tokens", "4-8",
                                    "--output-tokens", "2-12", "--seed", seed});
  ASSERT_EQ(result.exit_code, 0) << result.output;
}

Json ReportOf(const std::string& program, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {"report", "aa"});
  arguments.push_back("--json");
  const ProgramResult result = RunProgram(program, arguments);
  EXPECT_EQ(result.exit_code, 0) << result.output;
  return Json::parse(result.output, nullptr, false);
}

const Json& MetricOf(const Json& report, const std::string& arm, const std::string& metric) {
  static const Json none;
  for (const Json& entry : report.at("arms")) {
    if (entry.at("name") != arm) continue;
    for (const Json& found : entry.at("metrics")) {
      if (found.at("metric") == metric) return found;
    }
  }
  ADD_FAILURE() << "no " << metric << " of " << arm;
  return none;
}

std::int64_t UnitsOf(const Json& report, const std::string& arm, const std::string& metric) {
  return std::stoll(MetricOf(report, arm, metric).value("units", "0"));
}

std::int64_t Units(const Json& report, const std::string& arm) {
  return UnitsOf(report, arm, "requests");
}

}  // namespace penstock
