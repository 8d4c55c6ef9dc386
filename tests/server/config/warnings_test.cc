#include "server/config/warnings.h"

#include <string>
#include <vector>

#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/config/config.h"
#include "server/config/values.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr char kQuiet[] = R"(
model: {path: /m}
listen: {grpc: 127.0.0.1:1}
state_dir: /s
routers: {root: /r, load: [{name: mlp, path: mlp}]}
tenants: [{name: acme}]
experiments:
  traffic_salt: t
  list:
    - name: e
      audience: {tenants: [acme]}
      unit: user
      exposure: 20%
      arms: [{name: a, router: linear, share: 5000}, {name: b, router: mlp, share: 5000}]
      control: a
      primary: {metric: latency, better: lower, min_effect: 0.1}
      end: 2026-12-31T00:00:00Z
)";

// Of the file above with `from` as `to`, in the middle of December.
std::vector<std::string> WarningsWith(const std::string& from, const std::string& to) {
  const auto config = ParseConfig(absl::StrReplaceAll(kQuiet, {{from, to}}),
                                  {.overrides = {}, .built_in_routers = {"linear"}});
  EXPECT_TRUE(config.ok()) << config.status();
  if (!config.ok()) return {};
  return ConfigWarnings(*config, *ParseTimestamp("2026-12-15T00:00:00Z"));
}

TEST(ConfigWarnings, AreNoneOfAnOrdinaryFile) { EXPECT_THAT(WarningsWith("-", "-"), IsEmpty()); }

TEST(ConfigWarnings, TellWhatAnExperimentsAuthorHardlyWants) {
  EXPECT_THAT(WarningsWith("exposure: 20%", "exposure: 0.001%"),
              ElementsAre("experiments.list[0].exposure: 0.001% of 10000 buckets is less than one: "
                          "nobody is exposed"));
  // Said on purpose, before it begins.
  EXPECT_THAT(WarningsWith("exposure: 20%", "exposure: 0%"), IsEmpty());
  EXPECT_THAT(WarningsWith("{name: acme}", "{name: acme, pin: mlp}"),
              ElementsAre("experiments.list[0].audience.tenants[0]: the pin of acme to mlp comes "
                          "first: none of its requests is assigned"));
  EXPECT_THAT(WarningsWith("better: lower", "better: higher"),
              ElementsAre("experiments.list[0].primary.better: higher, though latency is better "
                          "when it is lower: the worse arm would win"));
  EXPECT_THAT(WarningsWith("2026-12-31", "2026-12-14"),
              ElementsAre("experiments.list[0].end: 2026-12-14T00:00:00Z is over: no request is "
                          "assigned"));
  EXPECT_THAT(WarningsWith("control: a\n", "control: a\n      switchback: {slice: 5m}\n"),
              ElementsAre("experiments.list[0].switchback: of no use under mode sticky"));
  EXPECT_THAT(WarningsWith("state_dir: /s\n", ""),
              ElementsAre("state_dir: empty: after a restart an arm that was halted takes requests "
                          "again"));
}

TEST(ConfigWarnings, TellWhatIsListenedOnInVain) {
  EXPECT_THAT(WarningsWith("{grpc: 127.0.0.1:1}", "{grpc: 127.0.0.1:1, http: 127.0.0.1:2}"),
              ElementsAre("listen.http: nothing listens there: this version has no HTTP API"));
  EXPECT_THAT(WarningsWith("{grpc: 127.0.0.1:1}", "{grpc: 0.0.0.0:1}\nauth: {mode: none}"),
              ElementsAre("listen.admin: empty, and listen.grpc is 0.0.0.0:1, no loopback address: "
                          "nobody may load routers, read reports, halt arms or drain by gRPC"));
  EXPECT_THAT(WarningsWith("{grpc: 127.0.0.1:1}",
                           "{grpc: 0.0.0.0:1, admin: /run/penstock.sock}\nauth: {mode: none}"),
              IsEmpty());
}

TEST(ConfigWarnings, PairedScoringThatWaitsForATenantIsAmongThem) {
  EXPECT_THAT(
      WarningsWith("metric: latency, better: lower", "metric: paired_logprob, better: higher"),
      ElementsAre("experiments.list[0].primary.metric: paired_logprob is not measured "
                  "without tenants[].paired_scoring true for one of its audience (acme): "
                  "until then no text is scored and nothing is decided"));
}

}  // namespace
}  // namespace penstock
