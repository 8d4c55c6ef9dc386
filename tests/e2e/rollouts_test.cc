// What Argo Rollouts and Flagger ask Prometheus (deploy/rollouts), asked of a real one that scrapes
// a real server under load.
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "clients/cpp/cli/http_get.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "server/config/yaml_tree.h"
#include "tests/e2e/prometheus_process.h"
#include "tests/e2e/server_process.h"

namespace penstock {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

constexpr char kConfig[] = R"(tenants: [{name: default, paired_scoring: true}]
experiments:
  traffic_salt: t
  paired_scoring: {share: 100%, max_cost: 100%}
  list:
    - name: mlp-vs-linear
      audience: {tenants: [default]}
      unit: request
      exposure: 100%
      arms: [{name: control, router: linear, share: 5000}, {name: mlp, router: mlp, share: 5000}]
      control: control
      primary: {metric: paired_logprob, better: higher, min_effect: 0.005}
)";

YamlNode ReadYamlFile(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  auto root = ParseYaml(text.str());
  EXPECT_TRUE(root.ok()) << path << ": " << root.status();
  return root.ok() ? *std::move(root) : YamlNode();
}

const YamlNode& At(const YamlNode& node, std::initializer_list<const char*> path) {
  static const YamlNode none;
  const YamlNode* found = &node;
  for (const char* key : path) {
    found = found->Find(key);
    if (found == nullptr) return ADD_FAILURE() << "no " << key, none;
  }
  return *found;
}

struct Gate {
  std::string query;
  std::string condition;  // Argo's, which decides; Flagger has a threshold
};

// By file and metric, as a controller would ask them of the pod below.
std::map<std::string, Gate> Gates() {
  const auto filled = [](const std::string& query) {
    return absl::StrReplaceAll(query, {{"{{args.namespace}}", "serving"},
                                       {"{{args.pods}}", "penstock-.*"},
                                       {"{{args.experiment}}", "mlp-vs-linear"},
                                       {"{{args.arm}}", "mlp"},
                                       {"{{ namespace }}", "serving"},
                                       {"{{ target }}", "penstock"},
                                       {"{{ interval }}", "1m"},
                                       {"{{ variables.experiment }}", "mlp-vs-linear"},
                                       {"{{ variables.arm }}", "mlp"}});
  };
  std::map<std::string, Gate> gates;
  const std::filesystem::path folder =
      std::filesystem::path(PENSTOCK_SOURCE_DIR) / "deploy/rollouts";
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".yaml") continue;
    const YamlNode root = ReadYamlFile(entry.path());
    const std::string file = entry.path().filename(), kind = At(root, {"kind"}).scalar;
    if (kind == "MetricTemplate") {
      gates[file] = {filled(At(root, {"spec", "query"}).scalar), ""};
      continue;
    }
    EXPECT_EQ(kind, "AnalysisTemplate") << file;
    for (const YamlNode& metric : At(root, {"spec", "metrics"}).items) {
      gates[file + " " + At(metric, {"name"}).scalar] = {
          filled(At(metric, {"provider", "prometheus", "query"}).scalar),
          At(metric, {"successCondition"}).scalar};
    }
  }
  return gates;
}

std::string Encoded(const std::string& text) {
  std::string out;
  for (const unsigned char byte : text)
    absl::StrAppend(&out, "%", absl::Hex(byte, absl::kZeroPad2));
  return out;
}

// What a query gives, as Argo Rollouts sees it: no number, or one, which may be NaN. Unset: no
// answer yet.
std::optional<std::vector<double>> Result(const PrometheusProcess& prometheus,
                                          const std::string& query) {
  const auto body = client::HttpGet(prometheus.address(), "/api/v1/query?query=" + Encoded(query),
                                    absl::Seconds(10));
  if (!body.ok()) return std::nullopt;  // it is not up yet
  const nlohmann::json answer = nlohmann::json::parse(*body, nullptr, false);
  const nlohmann::json& result = answer.at("data").at("result");
  EXPECT_LE(result.size(), 1u) << query << " gives more than one number: " << result;
  std::vector<double> values;
  for (const nlohmann::json& one : result)
    values.push_back(std::stod(one.at("value").at(1).get<std::string>()));
  return values;
}

// The one number that a query gives; unset: none, or not a number.
std::optional<double> Ask(const PrometheusProcess& prometheus, const std::string& query) {
  const auto result = Result(prometheus, query);
  if (!result || result->size() != 1 || std::isnan(result->front())) return std::nullopt;
  return result->front();
}

// Whether a query comes to give `want` within a minute.
bool Comes(const PrometheusProcess& prometheus, const std::string& query, double want) {
  const absl::Time end = absl::Now() + absl::Minutes(1);
  while (absl::Now() < end) {
    if (Ask(prometheus, query) == want) return true;
  }
  return false;
}

TEST(RolloutsTest, EveryQueryIsPromQl) {
  TemporaryFolder folder;
  std::string rules = "groups:\n- name: rollouts\n  rules:\n";
  int number = 0;
  for (const auto& [name, gate] : Gates()) {
    const std::string& query = gate.query;
    EXPECT_THAT(query, Not(HasSubstr("{{"))) << name;
    absl::StrAppend(&rules, "  - {record: \"query:", number++,
                    "\", expr: ", nlohmann::json(query).dump(), "}\n");
  }
  WriteFile(folder / "rules.yml", rules);
  const ProgramResult checked =
      RunProgram("/bin/sh", {"-c", "promtool check rules " + (folder / "rules.yml")});
  EXPECT_EQ(checked.exit_code, 0) << checked.output;
}

TEST(RolloutsTest, EveryQueryGivesANumberUnderLoad) {
  ServerProcess server(TinyModel::Get().Config(kConfig));
  PrometheusProcess prometheus({server.ops()}, "{namespace: serving, pod: penstock-7d9f-x2k4z}");
  const std::map<std::string, Gate> gates = Gates();
  ASSERT_THAT(gates, SizeIs(9));
  std::map<std::string, double> values;
  // Rates need two scrapes with traffic between them.
  for (int tries = 0; tries < 200 && values.size() < gates.size(); ++tries) {
    const ProgramResult load =
        RunProgram("penstock-bench", {"--server", server.grpc(), "--concurrency", "4", "--requests",
                                      "20", "--prompt-tokens", "4-8", "--output-tokens", "4"});
    ASSERT_EQ(load.exit_code, 0) << load.output;
    for (const auto& [name, gate] : gates) {
      if (const auto value = Ask(prometheus, gate.query)) values[name] = *value;
    }
  }
  for (const auto& [name, gate] : gates) {
    EXPECT_TRUE(values.contains(name)) << name << " gives no number: " << gate.query;
  }
  EXPECT_EQ(values["argo-analysis-template.yaml arms-halted"], 0);
  EXPECT_EQ(values["flagger-arms-halted.yaml"], 0);
  EXPECT_EQ(values["argo-analysis-template.yaml arm-error-rate"], 0);
  EXPECT_EQ(values["flagger-error-rate.yaml"], 0);
  EXPECT_GT(values["argo-analysis-template.yaml sample-ratio"], 0.001);
  EXPECT_GT(values["argo-analysis-template.yaml inter-token-latency-p99"], 0);

  v1::HaltArmRequest halt;
  halt.set_experiment("mlp-vs-linear");
  halt.set_arm("mlp");
  ASSERT_TRUE(server.Connect()->HaltArm(halt).ok());
  EXPECT_TRUE(Comes(prometheus, gates.at("argo-analysis-template.yaml arms-halted").query, 1))
      << "a halted arm stops the rollout";
}

TEST(RolloutsTest, AnArmWithoutTrafficStopsNoRollout) {
  ServerProcess server(TinyModel::Get().Config(kConfig));
  PrometheusProcess prometheus({server.ops()}, "{namespace: serving, pod: penstock-7d9f-x2k4z}");
  const std::map<std::string, Gate> gates = Gates();
  // Then the server was scraped.
  ASSERT_TRUE(Comes(prometheus, gates.at("argo-analysis-template.yaml arms-halted").query, 0));
  int without_number = 0;
  for (const auto& [name, gate] : gates) {
    if (gate.condition.empty()) continue;
    const auto result = Result(prometheus, gate.query);
    ASSERT_TRUE(result) << name;
    if (result->empty()) {
      EXPECT_THAT(gate.condition, HasSubstr("len(result) == 0 || ")) << name;
      ++without_number;
    } else if (std::isnan(result->front())) {
      EXPECT_THAT(gate.condition, HasSubstr("isNaN(result[0]) || ")) << name;
      ++without_number;
    }
  }
  EXPECT_GT(without_number, 0);
}

}  // namespace
}  // namespace penstock
