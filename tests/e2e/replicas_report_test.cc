// Reports of several real servers: merged by whoever asks them, and from a real Prometheus.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/e2e/aa_reports.h"
#include "tests/e2e/prometheus_process.h"
#include "tests/e2e/server_process.h"

namespace penstock {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

// The report by Prometheus, once it has both replicas and is as `wanted`.
template <typename Wanted>
Json GatheredOfTwo(const PrometheusProcess& prometheus, const ServerProcess& server,
                   const Wanted& wanted) {
  Json gathered;
  for (int tries = 0; tries < 500; ++tries) {
    const ProgramResult result =
        RunProgram("penstock", {"report", "aa", "--prometheus", prometheus.url(), "--config",
                                server.config_file(), "--units-stay", "--json"});
    gathered = Json::parse(result.output, nullptr, false);
    if (result.exit_code == 0 && gathered.at("replicas") == 2 && wanted(gathered)) break;
  }
  return gathered;
}

// Values, and intervals of b, of each of `metrics`, which both reports have.
void ExpectAgree(const Json& merged, const Json& gathered,
                 const std::vector<std::string>& metrics) {
  for (const std::string& metric : metrics) {
    for (const std::string arm : {"a", "b"}) {
      // Every text was scored under b and under control: there is one column of differences.
      if (arm == "a" && metric == "paired_logprob") continue;
      SCOPED_TRACE(absl::StrCat(metric, " of ", arm));
      const Json &want = MetricOf(merged, arm, metric), &got = MetricOf(gathered, arm, metric);
      EXPECT_EQ(got.at("units"), want.at("units"));
      ASSERT_TRUE(want.contains("value") && got.contains("value")) << want << got;
      const double value = want.at("value");
      EXPECT_NEAR(got.at("value").get<double>(), value, 1e-6 * std::abs(value));
      if (arm == "a") continue;
      ASSERT_TRUE(want.contains("comparison") && got.contains("comparison")) << want << got;
      const double width = want.at("comparison").at("upper").get<double>() -
                           want.at("comparison").at("lower").get<double>();
      EXPECT_GT(width, 0);
      for (const std::string bound : {"lower", "upper"}) {
        EXPECT_NEAR(got.at("comparison").at(bound).get<double>(),
                    want.at("comparison").at(bound).get<double>(), 1e-4 * width);
      }
    }
  }
}

TEST(ReplicasReportTest, ServersMergedAndPrometheusAgree) {
  ServerProcess first(TinyModel::Get().Config(SameArms()));
  ServerProcess second(TinyModel::Get().Config(SameArms()));
  SendTraffic(first, 200, "1");
  SendTraffic(second, 150, "2");

  const Json merged = ReportOf("penstock", {"--server", first.grpc(), "--server", second.grpc()});
  ASSERT_EQ(merged.at("replicas"), 2);
  EXPECT_EQ(Units(merged, "a") + Units(merged, "b"), 350);
  EXPECT_EQ(merged.at("split_units"), "0");
  const Json one = ReportOf("penstock-cli", {"--server", first.grpc()});
  EXPECT_LT(Units(one, "b"), Units(merged, "b"));

  PrometheusProcess prometheus({first.ops(), second.ops()});
  Json gathered;
  // Until both were scraped; asking takes as long as a program's start.
  for (int tries = 0; tries < 500; ++tries) {
    const ProgramResult result =
        RunProgram("penstock", {"report", "aa", "--prometheus", prometheus.url(), "--config",
                                first.config_file(), "--json"});
    gathered = Json::parse(result.output, nullptr, false);
    if (result.exit_code == 0 && gathered.at("replicas") == 2 &&
        Units(gathered, "a") + Units(gathered, "b") == 350) {
      break;
    }
  }
  ExpectAgree(merged, gathered,
              {"latency", "ttft", "inter_token_latency", "logprob", "repetition", "tokens"});
  EXPECT_NEAR(gathered.at("sample_ratio_p_value").get<double>(),
              merged.at("sample_ratio_p_value").get<double>(), 1e-9);
  for (int arm = 0; arm < 2; ++arm) {
    const Json &want = merged.at("arms").at(arm), &got = gathered.at("arms").at(arm);
    for (const char* count : {"requests", "errors", "cancelled", "prompt_tokens", "tokens"}) {
      EXPECT_EQ(got.value(count, "0"), want.value(count, "0")) << count;
    }
    // A sum of estimates, where the servers' sketches make one of their union.
    const double units = want.at("unique_units");
    EXPECT_NEAR(got.at("unique_units").get<double>(), units, 0.03 * units);
  }
  for (const std::string metric : {"latency", "ttft", "inter_token_latency"}) {
    const Json &want = MetricOf(merged, "b", metric), &got = MetricOf(gathered, "b", metric);
    for (const char* quantile : {"p50", "p90", "p99"}) {
      // Both lie in the same bucket, whose bounds are at most 2.5 times apart; the first begins at
      // 0.
      const double exact = want.at(quantile), coarse = got.at(quantile);
      EXPECT_LE(coarse, std::max(2.55 * exact, 0.01)) << metric << " " << quantile;
      EXPECT_GE(coarse, exact < 0.01 ? 0 : exact / 2.55) << metric << " " << quantile;
    }
  }
  EXPECT_EQ(gathered.at("period"), merged.at("period"));
  EXPECT_EQ(gathered.at("since").get<std::string>().substr(0, 19),
            merged.at("since").get<std::string>().substr(0, 19));
  EXPECT_THAT(gathered.at("warnings").dump(), HasSubstr("quantiles are interpolated"));
  EXPECT_THAT(gathered.at("warnings").dump(), Not(HasSubstr("split")))
      << "a request is on one replica";
}

// Sessions that stay on their server: intervals of users come from Prometheus too.
TEST(ReplicasReportTest, UsersWhoStayAgreeByPrometheusWithTextsAndOutcomes) {
  const std::string config = TinyModel::Get().Config(R"(
tenants: [{name: default, paired_scoring: true}]
experiments:
  traffic_salt: t
  paired_scoring: {share: 100%, max_cost: 100%, max_waiting: 4096}
  list:
    - name: aa
      audience: {tenants: [default]}
      unit: user
      unit_window: 1s
      exposure: 100%
      arms: [{name: a, router: linear, share: 5000}, {name: b, router: mlp, share: 5000}]
      control: a
      primary: {metric: paired_logprob, better: higher, min_effect: 0.005}
      outcomes: [click]
      outcome_window: 1s
)");
  constexpr int kUsers = 100;  // of each: enough that no arm has fewer than 30 effective ones
  ServerProcess first(config), second(config);
  int user = 0;
  for (const ServerProcess* server : {&first, &second}) {
    const auto client = server->Connect();
    for (int i = 0; i < kUsers; ++i, ++user) {
      v1::GenerateRequest request;
      request.mutable_unit()->set_user(absl::StrCat("user-", user));
      request.set_text(absl::StrCat("text of ", user));
      request.mutable_stopping()->set_max_new_tokens(4 + user % 9);
      request.mutable_stopping()->set_ignore_eos(true);
      ASSERT_TRUE(client->Generate(request).ok());
      if (user % 3 != 0) continue;
      v1::ReportOutcomeRequest outcome;
      outcome.mutable_unit()->set_user(request.unit().user());
      outcome.set_name("click");
      outcome.set_value(1 + user % 2);
      ASSERT_TRUE(client->ReportOutcome(outcome).ok());
    }
  }
  const auto entered = [](const Json& report) {
    return Units(report, "a") + Units(report, "b") == 2 * kUsers &&
           UnitsOf(report, "b", "paired_logprob") == 2 * kUsers &&
           UnitsOf(report, "a", "outcome.click") + UnitsOf(report, "b", "outcome.click") ==
               2 * kUsers;
  };
  Json merged;
  do {  // the windows are seconds
    merged = ReportOf("penstock", {"--server", first.grpc(), "--server", second.grpc()});
    ASSERT_FALSE(merged.is_discarded());
  } while (!entered(merged));
  PrometheusProcess prometheus({first.ops(), second.ops()});
  const Json gathered = GatheredOfTwo(prometheus, first, entered);
  ExpectAgree(merged, gathered,
              {"latency", "ttft", "inter_token_latency", "tokens", "logprob", "paired_logprob",
               "outcome.click"});
  for (const std::string arm : {"a", "b"}) {
    EXPECT_EQ(MetricOf(merged, arm, "error_rate").at("value"), 0);
    EXPECT_EQ(MetricOf(gathered, arm, "error_rate").at("value"), 0);
  }
  int texts = 0;
  for (std::size_t arm = 0; arm < 2; ++arm) {
    const Json &want = merged.at("arms").at(arm), &got = gathered.at("arms").at(arm);
    for (const char* field : {"texts_scored", "texts_dropped", "text_tokens"}) {
      EXPECT_EQ(got.at(field), want.at(field)) << field;
    }
    EXPECT_EQ(want.at("texts_scored"), want.at("requests")) << "those that it wrote";
    texts += std::stoi(want.at("texts_scored").get<std::string>());
  }
  EXPECT_EQ(texts, 2 * kUsers);
  EXPECT_EQ(gathered.at("summary"), merged.at("summary"));
}

TEST(ReplicasReportTest, ReplicasThatAreNotAlikeAreMergedOnlyWhereThatIsRight) {
  const std::string config = TinyModel::Get().Config(SameArms());
  ServerProcess first(config), idle(config);
  SendTraffic(first, 40, "1");
  const auto merge = [&](const ServerProcess& a, const ServerProcess& b) {
    return RunProgram("penstock",
                      {"report", "aa", "--json", "--server", a.grpc(), "--server", b.grpc()});
  };
  // One that has had no request yet.
  const ProgramResult with_idle = merge(first, idle);
  ASSERT_EQ(with_idle.exit_code, 0) << with_idle.output;
  const Json report = Json::parse(with_idle.output);
  EXPECT_EQ(report.at("replicas"), 2);
  EXPECT_EQ(Units(report, "a") + Units(report, "b"), 40);
  EXPECT_THAT(report.value("warnings", Json::array()).dump(), Not(HasSubstr("PERIODS")));
  const ProgramResult twice = merge(first, first);
  EXPECT_EQ(twice.exit_code, 1);
  EXPECT_THAT(twice.output, HasSubstr("both are the same server"));

  // Halted on one, then resumed there.
  const auto operate = [&](const std::string& what) {
    const ProgramResult done =
        RunProgram("penstock-cli", {"--server", idle.grpc(), "experiments", what, "aa", "b"});
    ASSERT_EQ(done.exit_code, 0) << done.output;
  };
  operate("halt");
  EXPECT_THAT(merge(first, idle).output,
              HasSubstr("on 1 of 2 replicas, on " + idle.grpc() + " by operator"));
  operate("resume");
  const Json alone = ReportOf("penstock-cli", {"--server", idle.grpc()});
  EXPECT_EQ(alone.at("period"), "2") << "before any request";
  EXPECT_EQ(alone.at("revision"), report.at("revision"));
  EXPECT_THAT(merge(idle, first).output,
              HasSubstr("PERIODS ARE MIXED: of 2 replicas some are in period 1 of the analysis, "
                        "some in period 2"));

  const auto with = [&](const std::string& from, const std::string& to) {
    return std::vector<std::string>{"--set", "experiments.list[0]." + from + "=" + to};
  };
  ServerProcess other_window(config, with("outcome_window", "2h"));
  EXPECT_THAT(merge(first, other_window).output,
              AllOf(HasSubstr(first.grpc() + " and " + other_window.grpc()),
                    HasSubstr("outcome_window is 1h on one server, 2h on another")));
  ServerProcess other_question(config, with("primary.metric", "ttft"));
  EXPECT_THAT(merge(other_question, first).output,
              HasSubstr("primary is ttft, lower is better, min_effect 30 on one server, latency"));
}

TEST(ReplicasReportTest, UnitsThatBothServersSawAreNoticed) {
  const std::string by_user = [] {
    std::string text = SameArms();
    const std::size_t at = text.find("unit: request");
    return text.replace(at, 13, "unit: user, unit_window: 1s");
  }();
  ServerProcess first(TinyModel::Get().Config(by_user));
  ServerProcess second(TinyModel::Get().Config(by_user));
  for (const ServerProcess* server : {&first, &second}) {
    for (const std::string user : {"u1", "u2", "u3"}) {
      EXPECT_EQ(RunProgram("penstock-cli", {"--server", server->grpc(), "generate", "--user", user,
                                            "--max-tokens", "2", "abc"})
                    .exit_code,
                0);
    }
  }
  const Json merged = ReportOf("penstock", {"--server", first.grpc(), "--server", second.grpc()});
  EXPECT_EQ(merged.at("split_units"), "3");
  EXPECT_THAT(merged.at("warnings").dump(), HasSubstr("3 users went to more than one replica"));
  std::int64_t exposed = 0;
  for (const Json& arm : merged.at("arms")) {
    exposed += std::stoll(arm.at("first_exposures").get<std::string>());
  }
  EXPECT_EQ(exposed, 3);

  // Prometheus' sums cannot make one unit of two, but the series show that there are such.
  PrometheusProcess prometheus({first.ops(), second.ops()});
  const Json gathered = GatheredOfTwo(prometheus, first, [](const Json&) { return true; });
  EXPECT_THAT(gathered.at("warnings").dump(),
              AllOf(HasSubstr("Of 3 users that were sampled by hash, 3 went to more than one "
                              "replica: units ARE split."),
                    HasSubstr("units may be split")));
  EXPECT_THAT(gathered.at("summary").get<std::string>(), HasSubstr("b is not judged"));
  double unique = 0;
  for (const Json& arm : gathered.at("arms")) unique += arm.value("unique_units", 0.0);
  EXPECT_NEAR(unique, 3, 0.1);
}

}  // namespace
}  // namespace penstock
