#include "server/config/reload.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "server/config/config.h"

namespace penstock {
namespace {

using ::google::protobuf::util::MessageDifferencer;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr char kRunning[] =
    "model: {path: /m}\nengine: {max_batch: 256}\n"
    "tenants: [{name: acme, weight: 1}, {name: beta}]\n"
    "routers: {root: /r, load: [{name: m, path: m}]}\n";

v1::ServerConfig Config(const std::string& yaml) {
  const auto config = ParseConfig(yaml, {.overrides = {}, .built_in_routers = {"linear"}});
  EXPECT_TRUE(config.ok()) << config.status();
  return *config;
}

std::vector<std::string> Lines(const ConfigReload& reload) {
  std::vector<std::string> lines;
  for (const ConfigChange& change : reload.changes) lines.push_back(change.ToString());
  return lines;
}

TEST(Reload, SameConfigurationHasNoChanges) {
  const auto reload = DiffForReload(Config(kRunning), Config(kRunning));
  EXPECT_THAT(Lines(reload), IsEmpty());
  EXPECT_TRUE(MessageDifferencer::Equals(reload.effective, Config(kRunning)));
}

TEST(Reload, AppliesTenantsRoutersLimitsAndLog) {
  const auto updated = Config(
      "model: {path: /m}\nengine: {max_batch: 256}\n"
      "tenants: [{name: gamma, pin: m}, {name: acme, weight: 2, routers: [linear, n]}]\n"
      "routers: {root: /r, default: linear, load: [{name: n, path: n}, {name: m, path: m2}]}\n"
      "limits: {max_new_tokens: 64, max_queue: 8}\nlog: {format: json}\n");
  const auto reload = DiffForReload(Config(kRunning), updated);
  EXPECT_THAT(Lines(reload),
              ElementsAre("routers.load[m].path: changed from m to m2", "routers.load[n]: added",
                          "tenants[acme].routers: changed from [] to [linear, n]",
                          "tenants[acme].weight: changed from 1 to 2", "tenants[beta]: removed",
                          "tenants[gamma]: added", "limits.max_new_tokens: changed from 4096 to 64",
                          "limits.max_queue: changed from 1024 to 8",
                          "log.format: changed from text to json"));
  EXPECT_TRUE(MessageDifferencer::Equals(reload.effective, updated));
}

TEST(Reload, SaysWhatTakesEffectAtRestartAndKeepsIt) {
  const auto updated = Config(
      "model: {path: /other}\nengine: {max_batch: 128, kv_memory: 4GiB}\n"
      "tenants: [{name: acme, weight: 1}, {name: beta}]\n"
      "routers: {root: /r, load: [{name: m, path: m}]}\n"
      "auth: {mode: none}\ndrain_timeout: 5s\nlimits: {max_n: 1, max_message_bytes: 1MiB, "
      "max_header_bytes: 8KiB}\n");
  const auto reload = DiffForReload(Config(kRunning), updated);
  EXPECT_THAT(
      Lines(reload),
      ElementsAre("model.path: changed from /m to /other, takes effect at restart",
                  "engine.max_batch: changed from 256 to 128, takes effect at restart",
                  "engine.kv_memory: changed from auto to 4GiB, takes effect at restart",
                  "auth.mode: changed from '' to none, takes effect at restart",
                  "limits.max_message_bytes: changed from 4MiB to 1MiB, takes effect at restart",
                  "limits.max_header_bytes: changed from 16KiB to 8KiB, takes effect at restart",
                  "limits.max_n: changed from 16 to 1",
                  "drain_timeout: changed from 30s to 5s, takes effect at restart"));
  v1::ServerConfig expected = Config(kRunning);
  expected.mutable_limits()->set_max_n(1);
  EXPECT_TRUE(MessageDifferencer::Equals(reload.effective, expected));
}

}  // namespace
}  // namespace penstock
