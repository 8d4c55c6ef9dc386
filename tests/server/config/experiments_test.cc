#include "server/config/experiments.h"

#include <string>
#include <vector>

#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/config/config.h"
#include "server/config/paired_scoring.h"
#include "server/config/reload.h"
#include "server/config/values.h"
#include "server/config/yaml_writer.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// Two experiments beside each other.
constexpr char kValid[] = R"(
model: {path: /m}
routers: {root: /r, load: [{name: mlp, path: mlp}, {name: hash, path: hash}]}
tenants: [{name: acme, routers: [linear, mlp]}, {name: beta, paired_scoring: true}]
experiments:
  traffic_salt: t1
  list:
    - name: first
      audience: {tenants: [acme, beta]}
      unit: user
      range: {first: 0, size: 5000}
      exposure: 20%
      salt: s1
      arms: [{name: control, router: linear, share: 5000}, {name: mlp, router: mlp, share: 5000}]
      control: control
      primary: {metric: paired_logprob, better: higher, min_effect: 0.005}
      start: 2026-12-01T00:00:00Z
      end: 2026-12-31T00:00:00+01:00
      unit_window: 48h
      guardrails:
        - {metric: error_rate, max: 0.01, window: 10m, min_requests: 200}
        - {metric: paired_logprob, min: -0.05}
    - name: second
      audience: {tenants: [beta, default]}
      unit: user
      range: {first: 5000, size: 5000}
      exposure: 1000
      arms: [{name: a, router: linear, share: 3000}, {name: b, router: hash, share: 7000, halted: true}]
      control: a
      primary: {metric: outcome.click, better: lower, min_effect: 1}
      mode: switchback
      switchback: {slice: 90s, burn_in: 15s}
      outcomes: [click, rating]
      outcome_window: 36h
)";

absl::StatusOr<v1::ServerConfig> Parse(const std::string& yaml) {
  return ParseConfig(yaml, {.overrides = {}, .built_in_routers = {"linear"}});
}

std::vector<std::string> Lines(const absl::Status& status) {
  if (status.ok()) return {};
  return absl::StrSplit(std::string(status.message()), '\n');
}

// What is wrong once `from` of kValid is `to`.
std::vector<std::string> ViolationsWith(const std::string& from, const std::string& to) {
  EXPECT_THAT(std::string(kValid), HasSubstr(from));
  const auto config = Parse(absl::StrReplaceAll(kValid, {{from, to}}));
  return Lines(config.status());
}

TEST(ExperimentsConfig, ReadsExperiments) {
  const auto config = Parse(kValid);
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_EQ(config->experiments().list_size(), 2);
  const v1::ExperimentConfig& first = config->experiments().list(0);
  EXPECT_EQ(first.unit(), v1::ExperimentConfig::UNIT_USER);
  EXPECT_EQ(first.salt(), "s1");
  EXPECT_EQ(first.mode(), v1::ExperimentConfig::MODE_STICKY);
  EXPECT_EQ(first.switchback().slice().seconds(), 60);
  EXPECT_EQ(first.arms(1).router(), "mlp");
  EXPECT_FALSE(first.arms(1).halted());
  const v1::ExperimentConfig& second = config->experiments().list(1);
  EXPECT_EQ(second.salt(), "second") << "the name where none is given";
  EXPECT_EQ(second.mode(), v1::ExperimentConfig::MODE_SWITCHBACK);
  EXPECT_EQ(second.switchback().burn_in().seconds(), 15);
  EXPECT_TRUE(second.arms(1).halted());
  EXPECT_EQ(second.outcomes_size(), 2);
  EXPECT_EQ(second.outcome_window().seconds(), 36 * 3600);
  EXPECT_EQ(second.unit_window().seconds(), 24 * 3600);
  ASSERT_EQ(first.guardrails_size(), 2);
  EXPECT_EQ(first.guardrails(0).max(), 0.01);
  EXPECT_EQ(first.guardrails(0).window().seconds(), 600);
  EXPECT_EQ(first.guardrails(0).min_requests(), 200);
  EXPECT_FALSE(first.guardrails(1).has_max());
  EXPECT_EQ(first.guardrails(1).min(), -0.05);
  EXPECT_EQ(first.guardrails(1).window().seconds(), 300);
  EXPECT_EQ(first.guardrails(1).min_requests(), 100);
}

TEST(ExperimentsConfig, ReadsWhatIsMeasuredBesides) {
  const auto config = Parse(absl::StrReplaceAll(
      kValid, {{"traffic_salt: t1",
                "traffic_salt: t1\n  exposure_log: /var/log/exposures.jsonl\n  max_units: 5000\n"
                "  shadow: {share: 2%, routers: [mlp], max_cost: 0.5%}\n"
                "  paired_scoring: {share: 1, max_cost: 0.2, max_waiting: 8}"}}));
  ASSERT_TRUE(config.ok()) << config.status();
  const v1::ExperimentsConfig& experiments = config->experiments();
  EXPECT_EQ(experiments.exposure_log(), "/var/log/exposures.jsonl");
  EXPECT_EQ(experiments.max_units(), 5000);
  EXPECT_DOUBLE_EQ(experiments.shadow().share(), 0.02);
  EXPECT_DOUBLE_EQ(experiments.shadow().max_cost(), 0.005);
  EXPECT_EQ(experiments.shadow().routers(0), "mlp");
  EXPECT_EQ(experiments.paired_scoring().share(), 1);
  EXPECT_EQ(experiments.paired_scoring().max_cost(), 0.2);
  EXPECT_EQ(experiments.paired_scoring().max_waiting(), 8);
  EXPECT_FALSE(config->tenants(0).paired_scoring()) << "a tenant opts in";
  EXPECT_TRUE(config->tenants(1).paired_scoring());
}

TEST(ExperimentsConfig, PeersAreHostsWithAPort) {
  const auto config = Parse(
      "model: {path: /m}\nexperiments: {peers: {addresses: [penstock-headless:9400, "
      "'[::1]:9400']}}");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->experiments().peers().addresses(),
              ElementsAre("penstock-headless:9400", "[::1]:9400"));
  EXPECT_EQ(config->experiments().peers().interval().seconds(), 5);
  const auto refused = Parse(
      "model: {path: /m}\nexperiments: {peers: {addresses: [a:1, http://a:1, a], interval: 10ms}}");
  const std::string message(refused.status().message());
  EXPECT_THAT(message,
              HasSubstr("experiments.peers.addresses[1]: got 'http://a:1', want a host and "
                        "a port such as penstock-ops:9400"));
  EXPECT_THAT(message, HasSubstr("experiments.peers.addresses[2]: got 'a'"));
  EXPECT_THAT(message, HasSubstr("experiments.peers.interval: got"));
}

TEST(ExperimentsConfig, ARangeIsAllBucketsUnlessGiven) {
  const auto config = Parse(absl::StrReplaceAll(
      kValid, {{"range: {first: 0, size: 5000}", "range: {}"}, {"[beta, default]", "[default]"}}));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->experiments().list(0).range().first(), 0);
  EXPECT_EQ(config->experiments().list(0).range().size(), 10'000);
}

struct BadExperiment {
  std::string from, to;   // within kValid
  std::string violation;  // start of the only one
};

const std::vector<BadExperiment>& BadExperiments() {
  static const auto* const cases = new std::vector<BadExperiment>{
      {"traffic_salt: t1", "traffic_salt: ''",
       "experiments.traffic_salt: got nothing, want text that stays the same for good"},
      {"name: second", "name: first",
       "experiments.list[1].name: got 'first', want a name other than that of experiments.list[0]"},
      {"name: second", "name: 'a b'", "experiments.list[1].name: got 'a b', want a name: a letter"},
      {"    - name: second\n      audience", "    - audience",
       "experiments.list[1].name: got nothing, want the experiment's name"},
      // Salts.
      {"salt: s1", "salt: ''",
       "experiments.list[0].salt: got '', want text, or no salt at all: it is then the"},
      {"salt: s1", "salt: \"a\\0b\"", "experiments.list[0].salt: got 'a\\000b', want text"},
      {"salt: s1", "salt: t1",
       "experiments.list[0].salt: got that of experiments.traffic_salt, want another"},
      {"salt: s1", "salt: second",
       "experiments.list[1].salt: got that of experiments.list[0].salt, want another"},
      // Audience.
      {"[beta, default]", "[]",
       "experiments.list[1].audience.tenants: got nothing, want at least one tenant"},
      {"[beta, default]", "[beta, gamma]",
       "experiments.list[1].audience.tenants[1]: got 'gamma', want a tenant: acme, beta, default"},
      {"[beta, default]", "[beta, beta]",
       "experiments.list[1].audience.tenants[1]: got 'beta', want a name other than that of"},
      {"routers: [linear, mlp]}, {name: beta", "routers: [linear]}, {name: beta",
       "experiments.list[0].arms[1].router: got 'mlp', want a router that tenant acme of the "
       "audience may use: linear"},
      // What was refused already makes no second line.
      {"[beta, default]", "beta", "experiments.list[1].audience.tenants: got 'beta', want a list"},
      {"{tenants: [beta, default]}", "beta",
       "experiments.list[1].audience: got 'beta', want a map of fields: tenants"},
      {"{name: b, router: hash", "{router: hash",
       "experiments.list[1].arms[1].name: got nothing, want the arm's name"},
      // Unit, range, exposure.
      {"unit: user\n      range: {first: 0", "range: {first: 0",
       "experiments.list[0].unit: got nothing, want what is drawn an arm for: one of tenant"},
      {"unit: user\n      range: {first: 0", "unit: device\n      range: {first: 0",
       "experiments.list[0].unit: got 'device', want one of tenant, session, user, request"},
      {"unit: user\n      range: {first: 5000", "unit: session\n      range: {first: 5000",
       "experiments.list[1].unit: got 'session', want user, as experiments.list[0], which has "
       "tenant beta too"},
      {"first: 5000", "first: 4999",
       "experiments.list[1].range: got buckets 4999 to 9998, want a range apart from buckets 0 to "
       "4999 of experiments.list[0], which has tenant beta too"},
      {"first: 5000, size: 5000", "first: 5000, size: 5001",
       "experiments.list[1].range.size: got 5001, want at most 5000: from bucket 5000 on"},
      {"exposure: 20%", "exposure: 120%",
       "experiments.list[0].exposure: got '120%', want a number of buckets such as 1000, or a "
       "percentage of the range such as 20%, at most 100%"},
      {"exposure: 20%", "exposure: 0.2", "experiments.list[0].exposure: got '0.2', want a number"},
      {"exposure: 1000", "exposure: 5001",
       "experiments.list[1].exposure: got '5001', want at most range.size, 5000"},
      {"      exposure: 20%\n", "",
       "experiments.list[0].exposure: got nothing, want a number of buckets or a percentage"},
      // Arms.
      {"[{name: a, router: linear, share: 3000}, {name: b, router: hash, share: 7000, "
       "halted: true}]",
       "[{name: a, router: linear, share: 10000}]",
       "experiments.list[1].arms: got 1 arm, want at least 2"},
      {"share: 7000", "share: 6000",
       "experiments.list[1].arms: got shares that sum to 9000, want a sum of 10000 (5000 is a "
       "half)"},
      {"linear, share: 3000}", "linear, share: 0}, {name: c, router: linear, share: 3000}",
       "experiments.list[1].arms[0].share: got '0', want an integer from 1 to 10000"},
      {"share: 7000", "share: 70%",
       "experiments.list[1].arms[1].share: got '70%', want an integer from 1 to 10000: a share of "
       "10000 (5000 is a half)"},
      {"share: 7000", "share: 7000.5", "experiments.list[1].arms[1].share: got '7000.5', want"},
      {"{name: b,", "{name: a,",
       "experiments.list[1].arms[1].name: got 'a', want a name other than that of "
       "experiments.list[1].arms[0]"},
      {"{name: b, router: hash", "{name: b, router: hsah",
       "experiments.list[1].arms[1].router: got 'hsah', want one of linear, mlp, hash"},
      {"control: a\n", "control: c\n",
       "experiments.list[1].control: got 'c', want one of its arms: a, b"},
      {"      control: a\n", "",
       "experiments.list[1].control: got nothing, want the name of one arm"},
      // What decides.
      {"metric: paired_logprob, better", "metric: logprob, better",
       "experiments.list[0].primary.metric: got 'logprob', want another measure"},
      {"metric: paired_logprob, better", "metric: speed, better",
       "experiments.list[0].primary.metric: got 'speed', want one of paired_logprob, ttft"},
      {"metric: paired_logprob, better", "metric: token_entropy, better",
       "experiments.list[0].primary.metric: got 'token_entropy', want a measure of requests, such "
       "as latency, or mode switchback"},
      {"better: higher", "better: more",
       "experiments.list[0].primary.better: got 'more', want one of higher, lower"},
      {"metric: paired_logprob, better", "better",
       "experiments.list[0].primary.metric: got nothing, want the measure that decides"},
      {"min_effect: 0.005", "min_effect: 0",
       "experiments.list[0].primary.min_effect: got '0', want a number from 1e-06 to 1000000"},
      {", min_effect: 0.005", "",
       "experiments.list[0].primary.min_effect: got nothing, want the smallest difference"},
      {"router: hash, share: 7000", "router: hash",
       "experiments.list[1].arms[1].share: got nothing, want a share of 10000 (5000 is a half)"},
      // Outcomes and guardrails.
      {"outcomes: [click, rating]", "outcomes: [rating]",
       "experiments.list[1].primary.metric: got 'outcome.click', want outcome.NAME of one that "
       "outcomes lists: rating"},
      {"outcomes: [click, rating]", "outcomes: [click, click]",
       "experiments.list[1].outcomes[1]: got 'click', want a name other than that of"},
      {"outcome_window: 36h", "outcome_window: 0s",
       "experiments.list[1].outcome_window: got '0s', want a duration such as 30s from 1s"},
      {"unit_window: 48h", "unit_window: 2161h",
       "experiments.list[0].unit_window: got '2161h', want a duration such as 30s from 1s"},
      {"metric: error_rate", "metric: latency",
       "experiments.list[0].guardrails[0].metric: got 'latency', want one of error_rate, "
       "inter_token_latency_p99, non_finite_logits, repetition, idle_experts, imbalance, "
       "paired_logprob"},
      {"metric: error_rate, max", "max",
       "experiments.list[0].guardrails[0].metric: got nothing, want a measure, such as"},
      {"metric: paired_logprob, min: -0.05", "metric: error_rate, max: 0.5",
       "experiments.list[0].guardrails[1].metric: got 'error_rate', want a name other than that"},
      {"max: 0.01, window", "window",
       "experiments.list[0].guardrails[0].max: got nothing, want the bound of error_rate"},
      {"max: 0.01, window", "max: 0.01, min: 0, window",
       "experiments.list[0].guardrails[0].min: got 0, want nothing: error_rate is bounded by max"},
      {"max: 0.01", "max: 1.5",
       "experiments.list[0].guardrails[0].max: got 1.5, want a bound of error_rate from 0 to 1"},
      {"min: -0.05", "min: 0.05",
       "experiments.list[0].guardrails[1].min: got 0.05, want a bound of paired_logprob from "},
      {"max: 0.01", "max: 1%",
       "experiments.list[0].guardrails[0].max: got '1%', want a number: 0.05 for 5 %"},
      {"metric: error_rate, max: 0.01", "metric: inter_token_latency_p99, max: 200",
       "experiments.list[0].guardrails[0].max: got 200, want a bound of inter_token_latency_p99 "
       "from 0 to 60 seconds"},
      {"outcome.click, better", "click, better",
       "experiments.list[1].primary.metric: got 'click', want outcome.click, as what clients"},
      {"rating]", "outcome.rating]",
       "experiments.list[1].outcomes[1]: got 'outcome.rating', want the name without outcome."},
      {"min_effect: 0.005", "min_effect: 1%",
       "experiments.list[0].primary.min_effect: got '1%', want a number from 1e-06 to 1000000: the "
       "smallest difference worth acting on, in the measure's own unit"},
      {"window: 10m", "window: 1s",
       "experiments.list[0].guardrails[0].window: got '1s', want a duration such as 30s from 10s"},
      {"min_requests: 200", "min_requests: 0",
       "experiments.list[0].guardrails[0].min_requests: got '0', want an integer from 1 to"},
      {", paired_scoring: true", "",
       "experiments.list[0].guardrails[1].metric: got 'paired_logprob', want another measure, or "
       "tenants[].paired_scoring true for one of its audience (acme, beta): no text is scored"},
      // Shadow routing.
      {"traffic_salt: t1", "shadow: {routers: [mlp, mpl]}\n  traffic_salt: t1",
       "experiments.shadow.routers[1]: got 'mpl', want one of linear, mlp, hash"},
      {"traffic_salt: t1", "shadow: {share: 101%}\n  traffic_salt: t1",
       "experiments.shadow.share: got '101%', want a ratio such as 0.2 or 20% from 0 to 1"},
      // Times.
      {"start: 2026-12-01T00:00:00Z", "start: tomorrow",
       "experiments.list[0].start: got 'tomorrow', want a time such as 2026-12-01T00:00:00Z"},
      {"start: 2026-12-01T00:00:00Z", "start: infinite-past",
       "experiments.list[0].start: got 'infinite-past', want a time"},
      {"end: 2026-12-31T00:00:00+01:00", "end: 2026-12-01T01:00:00+01:00",
       "experiments.list[0].end: got '2026-12-01T01:00:00+01:00', want a time after start"},
      {"mode: switchback", "mode: alternating",
       "experiments.list[1].mode: got 'alternating', want one of sticky, switchback"},
      {"burn_in: 15s", "burn_in: 90s",
       "experiments.list[1].switchback.burn_in: got 1m30s, want a duration shorter than slice"},
      {"slice: 90s", "slice: 500ms",
       "experiments.list[1].switchback.slice: got '500ms', want a duration such as 30s from 1s"},
      {"halted: true", "haltd: true",
       "experiments.list[1].arms[1].haltd: got an unknown field, want halted"},
  };
  return *cases;
}

TEST(ExperimentsConfig, NamesPathValueAndWhatIsWanted) {
  ASSERT_FALSE(BadExperiments().empty());
  for (const auto& [from, to, violation] : BadExperiments()) {
    SCOPED_TRACE(to.empty() ? "without " + from : to);
    EXPECT_THAT(ViolationsWith(from, to), ElementsAre(StartsWith(violation)));
  }
}

TEST(ExperimentsConfig, APairedMeasureThatNobodyMayTakeIsRefusedOrWarnedOf) {
  for (const std::string field : {"share", "max_cost"}) {
    EXPECT_THAT(
        ViolationsWith("traffic_salt: t1",
                       "traffic_salt: t1\n  paired_scoring: {" + field + ": 0}"),
        ElementsAre("experiments.list[0].primary.metric: got 'paired_logprob', want another "
                    "measure, or experiments.paired_scoring." +
                        field + " above 0: no text is scored, so nothing would ever be decided",
                    StartsWith("experiments.list[0].guardrails[1].metric: got 'paired_logprob'")));
  }
  EXPECT_THAT(PairedScoringWarnings(*Parse(kValid)), ElementsAre());
  // A tenant may opt in later; that nothing is measured until then is said.
  const auto waits = Parse(absl::StrReplaceAll(
      kValid, {{", paired_scoring: true", ""}, {"- {metric: paired_logprob, min: -0.05}", ""}}));
  ASSERT_TRUE(waits.ok()) << waits.status();
  EXPECT_THAT(PairedScoringWarnings(*waits),
              ElementsAre("experiments.list[0].primary.metric: paired_logprob is not measured "
                          "without tenants[].paired_scoring true for one of its audience (acme, "
                          "beta): until then no text is scored and nothing is decided"));
}

TEST(ExperimentsConfig, ReportsAllViolationsAtOnce) {
  const auto config = Parse(absl::StrReplaceAll(
      kValid, {{"t1", "s1"}, {"share: 7000", "share: 1"}, {"first: 5000", "first: 0"}}));
  EXPECT_THAT(Lines(config.status()),
              ElementsAre(StartsWith("experiments.list[1].arms: got shares that sum to 3001"),
                          StartsWith("experiments.list[1].range: got buckets 0 to 4999"),
                          StartsWith("experiments.list[0].salt: got that of")));
}

TEST(ExperimentsConfig, AudiencesApartMayHaveTheSameRangeAndOtherUnits) {
  const auto config = Parse(absl::StrReplaceAll(
      kValid, {{"[beta, default]", "[default]"},
               {"unit: user\n      range: {first: 5000, size: 5000}", "unit: request"}}));
  EXPECT_TRUE(config.ok()) << config.status();
}

TEST(ExperimentsConfig, AnAAExperimentIsOneRouterTwice) {
  EXPECT_THAT(ViolationsWith("{name: b, router: hash", "{name: b, router: linear"), ElementsAre());
}

TEST(ExperimentsConfig, SaltsAreHiddenWhereTheConfigurationIsShown) {
  const auto config = Parse(absl::StrReplaceAll(kValid, {{"t1", "grain"}, {"s1", "pepper"}}));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(ToYaml(*config), testing::AllOf(HasSubstr("grain"), HasSubstr("pepper")));
  EXPECT_THAT(ToYaml(*config, Secrets::kHidden),
              testing::AllOf(Not(HasSubstr("grain")), Not(HasSubstr("pepper")),
                             HasSubstr("traffic_salt: \"(hidden)\"")));
}

TEST(ExperimentsConfig, AReloadSaysWhatChangedButNoSalt) {
  const auto running = Parse(kValid);
  const auto updated = Parse(absl::StrReplaceAll(
      kValid, {{"exposure: 20%", "exposure: 30%"},
               {"traffic_salt: t1", "traffic_salt: t2"},
               {", halted: true", ""},
               {"max: 0.01", "max: 0.02"},
               {"- {metric: paired_logprob, min: -0.05}", "- {metric: repetition, max: 0.5}"}}));
  ASSERT_TRUE(running.ok() && updated.ok()) << updated.status();
  const ConfigReload reload = DiffForReload(*running, *updated);
  std::vector<std::string> lines;
  for (const ConfigChange& change : reload.changes) lines.push_back(change.ToString());
  EXPECT_THAT(lines,
              ElementsAre("experiments.traffic_salt: changed from (hidden) to (hidden)",
                          "experiments.list[first].exposure: changed from 20% to 30%",
                          "experiments.list[first].guardrails[error_rate].max: changed from 0.01 "
                          "to 0.02",
                          "experiments.list[first].guardrails[paired_logprob]: removed",
                          "experiments.list[first].guardrails[repetition]: added",
                          "experiments.list[second].arms[b].halted: changed from true to false"));
  EXPECT_EQ(reload.effective.experiments().list(0).exposure(), "30%");
}

TEST(ExperimentsConfig, ExposureIsACountOrAPercentageOfTheRange) {
  EXPECT_EQ(ParseExposure("20%", 5000), 1000);
  EXPECT_EQ(ParseExposure("0.01%", 10'000), 1);
  EXPECT_EQ(ParseExposure("29%", 100), 29);
  EXPECT_EQ(ParseExposure("100%", 7), 7);
  EXPECT_EQ(ParseExposure("0%", 7), 0);
  EXPECT_EQ(ParseExposure("7", 7), 7);
  for (const char* bad : {"8", "-1", "0.5", "100.1%", "-1%", "nan%", "%", "", "7 ", "1e1"}) {
    EXPECT_EQ(ParseExposure(bad, 7), std::nullopt) << bad;
  }
}

}  // namespace
}  // namespace penstock
