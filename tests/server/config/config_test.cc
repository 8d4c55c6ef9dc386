#include "server/config/config.h"

#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "server/config/duration.h"
#include "server/config/yaml_writer.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

// The page interfaces.md, Configuration by example, without the parts of experiments that are not
// there yet.
constexpr char kExample[] = R"(
listen:  {grpc: 127.0.0.1:50051, http: 127.0.0.1:8080, ops: 127.0.0.1:9400}
model:   {path: /models/qwen, device: auto, dtype: auto, load_format: safetensors, batch_invariant: false}
engine:  {max_batch: 256, max_context: 8192, prefill_chunk: 2048, kv_memory: auto, block_tokens: 16}
routers:
  root: /routers
  default: linear
  load: [{name: mlp-v3, path: mlp-v3}]
tenants:
  - {name: acme, routers: [linear, mlp-v3], pin: "", weight: 2, requests_per_second: 50, tokens_per_second: 20000, concurrent: 64, priority_ceiling: 7}
experiments:
  traffic_salt: t1
  list:
    - name: mlp-vs-linear
      audience: {tenants: [acme]}
      unit: user
      range: {first: 0, size: 5000}
      exposure: 20%
      arms: [{name: control, router: linear, share: 5000}, {name: mlp, router: mlp-v3, share: 5000}]
      control: control
      primary: {metric: paired_logprob, better: higher, min_effect: 0.005}
      start: 2026-12-01T00:00:00Z
auth:    {mode: none}
limits:  {max_prompt_tokens: 7168, max_new_tokens: 4096, max_queue: 1024}
cache:   {share_across_tenants: false}
drain_timeout: 30s
state_dir: /var/lib/penstock
)";

ConfigOptions Options(std::vector<std::string> overrides = {}) {
  return {.overrides = std::move(overrides), .built_in_routers = {"linear"}};
}

std::vector<std::string> ViolationsOf(std::string_view yaml,
                                      std::vector<std::string> overrides = {}) {
  const auto config = ParseConfig(yaml, Options(std::move(overrides)));
  if (config.ok()) return {};
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  return absl::StrSplit(std::string(config.status().message()), '\n');
}

TEST(Config, ReadsTheExampleOfTheDesign) {
  const auto config = ParseConfig(kExample, Options());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->listen().grpc(), "127.0.0.1:50051");
  EXPECT_EQ(config->model().path(), "/models/qwen");
  EXPECT_FALSE(config->engine().has_kv_memory());
  ASSERT_EQ(config->tenants_size(), 1);
  EXPECT_EQ(config->tenants(0).weight(), 2);
  EXPECT_THAT(config->tenants(0).routers(), ElementsAre("linear", "mlp-v3"));
  EXPECT_EQ(config->tenants(0).priority_ceiling(), 7);
  EXPECT_EQ(config->auth().mode(), v1::AuthConfig::MODE_NONE);
  EXPECT_EQ(ToDuration(config->drain_timeout()), absl::Seconds(30));
}

TEST(Config, FillsEveryDefaultIn) {
  const auto config = ParseConfig("model: {path: /m}\ntenants: [{name: a}]", Options());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->listen().ops(), "127.0.0.1:9400");
  EXPECT_EQ(config->engine().max_batch(), 256);
  EXPECT_EQ(config->routers().default_(), "linear");
  EXPECT_EQ(config->routers().max_loaded(), 16);
  EXPECT_EQ(config->limits().max_message_bytes(), 4 << 20);
  EXPECT_EQ(config->limits().max_stop_string_bytes(), 256);
  EXPECT_EQ(config->tenants(0).weight(), 1);
  EXPECT_EQ(config->tenants(0).priority_ceiling(), 9);
  EXPECT_EQ(ToDuration(config->drain_timeout()), absl::Seconds(30));
  EXPECT_EQ(config->auth().mode(), v1::AuthConfig::MODE_UNSPECIFIED);
}

TEST(Config, ReadsSizesDurationsAndEnums) {
  const auto config = ParseConfig(
      "model: {path: /m, device: cpu, dtype: bfloat16}\nengine: {kv_memory: 4GiB}\n"
      "drain_timeout: 1m30s\nlog: {format: json, prompts: true}",
      Options());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->engine().kv_memory(), std::int64_t{4} << 30);
  EXPECT_EQ(config->model().device(), v1::ModelConfig::DEVICE_CPU);
  EXPECT_EQ(config->model().dtype(), v1::ModelConfig::DTYPE_BFLOAT16);
  EXPECT_EQ(ToDuration(config->drain_timeout()), absl::Seconds(90));
  EXPECT_EQ(config->log().format(), v1::LogConfig::FORMAT_JSON);
  EXPECT_TRUE(config->log().prompts());
}

TEST(Config, ReportsAllViolationsAtOnce) {
  EXPECT_THAT(
      ViolationsOf("engine: {max_bacth: 1, max_batch: 0}\n"
                   "tenants: [{name: a}, {name: '', weight: heavy}]\n"
                   "drain_timeout: 30\n"),
      UnorderedElementsAre("engine.max_bacth: got an unknown field, want max_batch",
                           "engine.max_batch: got '0', want an integer from 1 to 4096",
                           "tenants[1].weight: got 'heavy', want a number from 0.01 to 1000",
                           "drain_timeout: got '30', want a duration such as 30s from 0 to 1h",
                           "model.path: got nothing, want the folder of a checkpoint",
                           "tenants[1].name: got nothing, want the tenant's name"));
}

struct BadFile {
  std::string yaml;
  std::string violation;  // start of the only one
};

// Every wrong file below is wrong in this one way: it is appended to the model's path.
const std::vector<BadFile>& BadFiles() {
  static const auto* const files = new std::vector<BadFile>{
      {"listen: {grpc: 'example.com:1'}", "listen.grpc: got 'example.com:1', want an IP address"},
      {"listen: {grpc: '127.0.0.1'}", "listen.grpc: got '127.0.0.1', want an IP address"},
      {"listen: {grpc: '127.0.0.1:65536'}", "listen.grpc: got '127.0.0.1:65536', want"},
      {"listen: {grpc: ''}", "listen.grpc: got '', want an IP address"},
      {"listen: {admin: 'unix:/run/a.sock'}",
       "listen.admin: got 'unix:/run/a.sock', want an absolute path"},
      {"listen: {admin: /run/a%41.sock}", "listen.admin: got '/run/a%41.sock', want an absolute"},
      {"listen: {grpc: '127.0.0.1:9400'}",
       "listen.ops: got '127.0.0.1:9400', want an endpoint other than listen.grpc's"},
      {"listen: {grpc: '0.0.0.0:50051'}",
       "auth.mode: got nothing, want it said explicitly, since listen.grpc is '0.0.0.0:50051'"},
      {"listen: {admin: " + std::string(108, 'a') + "}", "listen.admin: got 'aaaa"},
      {"auth: none", "auth: got 'none', want a map of fields: mode"},
      {"auth: {mode: keys}", "auth.mode: got 'keys', want none"},
      {"auth: {mode: unspecified}", "auth.mode: got 'unspecified', want none"},
      {"engine: {max_batch: 1.5}", "engine.max_batch: got '1.5', want an integer"},
      {"engine: {max_batch: 99999999999999999999}", "engine.max_batch: got '99999999999999999999'"},
      {"engine: {max_batch: -1}", "engine.max_batch: got '-1', want an integer from 1 to 4096"},
      {"engine: {max_batch: auto}", "engine.max_batch: got 'auto', want an integer"},
      {"engine: {kv_memory: 4GB}",
       "engine.kv_memory: got '4GB', want auto, or a size such as 4GiB from 1MiB to 64TiB"},
      {"engine: {kv_memory: 1KiB}", "engine.kv_memory: got '1KiB', want auto, or a size"},
      {"engine: []", "engine: got a list, want a map of fields: "},
      {"engine: 7", "engine: got '7', want a map of fields: "},
      {"engine:", "engine: got nothing, want a map of fields: "},
      {"engine: {max_batch: }", "engine.max_batch: got nothing, want an integer"},
      {"engine: {max_batch: [1]}", "engine.max_batch: got a list, want an integer"},
      {"dashboards: {}", "dashboards: got an unknown field, want one of listen, model, engine"},
      {"tenants: {}", "tenants: got a map, want a list"},
      {"tenants: [[]]", "tenants[0]: got a list, want a map of fields: "},
      {"tenants: [{name: a}, {name: a}]",
       "tenants[1].name: got 'a', want a name other than that of tenants[0]"},
      {"tenants: [{name: 'a b'}]", "tenants[0].name: got 'a b', want a name: a letter"},
      {"tenants: [{name: other}]", "tenants[0].name: got 'other', want another name"},
      {"tenants: [{name: a, routers: [linear, mpl]}]",
       "tenants[0].routers[1]: got 'mpl', want linear"},
      {"tenants: [{name: a, routers: [linear, linear]}]",
       "tenants[0].routers[1]: got 'linear', want a name other than that of routers[0]"},
      {"tenants: [{name: a, pin: mpl}]", "tenants[0].pin: got 'mpl', want linear"},
      {"tenants: [{name: a, weight: .inf}]", "tenants[0].weight: got '.inf', want a number"},
      {"tenants: [{name: a, weight: inf}]", "tenants[0].weight: got 'inf', want a number"},
      {"tenants: [{name: a, weight: nan}]", "tenants[0].weight: got 'nan', want a number"},
      {"tenants: [{name: a, weight: 0}]", "tenants[0].weight: got '0', want a number from 0.01"},
      {"tenants: [{name: a, priority_ceiling: 10}]",
       "tenants[0].priority_ceiling: got '10', want an integer from 0 to 9"},
      {"tenants: [{name: a, requests_per_second: -1}]",
       "tenants[0].requests_per_second: got '-1', want a number from 0 to 1000000"},
      {"routers: {default: mlp}", "routers.default: got 'mlp', want linear"},
      {"routers: {load: [{name: m, path: m}]}", "routers.root: got nothing, want the folder"},
      {"routers: {root: /r, load: [{name: m}]}", "routers.load[0].path: got nothing, want"},
      {"routers: {root: /r, load: [{name: m, path: ../m}]}",
       "routers.load[0].path: got '../m', want a relative path without '..'"},
      {"routers: {root: /r, load: [{name: m, path: /m}]}", "routers.load[0].path: got '/m', want"},
      {"routers: {root: /r, load: [{name: m, path: m}, {name: m, path: n}]}",
       "routers.load[1].name: got 'm', want a name other than that of routers.load[0]"},
      {"routers: {root: /r, max_loaded: 1, load: [{name: m, path: m}]}",
       "routers.load: got 2 routers with the checkpoint's own, want at most routers.max_loaded, 1"},
      {"drain_timeout: -1s", "drain_timeout: got '-1s', want a duration"},
      {"drain_timeout: inf", "drain_timeout: got 'inf', want a duration"},
      {"drain_timeout: 2h", "drain_timeout: got '2h', want a duration such as 30s from 0 to 1h"},
      {"log: {prompts: yes}", "log.prompts: got 'yes', want true or false"},
      {"limits: {max_queue: 0}", "limits.max_queue: got '0', want an integer from 1 to 1048576"},
  };
  return *files;
}

TEST(Config, NamesPathValueAndWhatIsWanted) {
  ASSERT_FALSE(BadFiles().empty());
  for (const auto& [yaml, violation] : BadFiles()) {
    SCOPED_TRACE(yaml);
    const auto violations = ViolationsOf("model: {path: /m}\n" + yaml);
    ASSERT_FALSE(violations.empty());
    EXPECT_THAT(violations.front(), StartsWith(violation));
    // A list's entry that is no map lacks its name too.
    EXPECT_EQ(violations.size(), yaml == "tenants: [[]]" ? 2 : 1);
  }
}

TEST(Config, RefusesALoadFormatThatItDoesNotKnow) {
  EXPECT_THAT(ViolationsOf("model: {path: /m, load_format: gguf}"),
              ElementsAre("model.load_format: got 'gguf', want one of safetensors, dummy"));
}

TEST(Config, PinMustBeAmongTheTenantsRouters) {
  const std::string yaml =
      "model: {path: /m}\nrouters: {root: /r, load: [{name: m, path: m}]}\n"
      "tenants: [{name: a, pin: linear, routers: [m]}]";
  EXPECT_THAT(ViolationsOf(yaml),
              ElementsAre("tenants[0].pin: got 'linear', want one of its routers"));
}

TEST(Config, TenantNeedsARouterForRequestsThatNameNone) {
  const std::string yaml =
      "model: {path: /m}\nrouters: {root: /r, load: [{name: m, path: m}]}\n"
      "tenants: [{name: a, routers: [m]}]";
  EXPECT_THAT(ViolationsOf(yaml), ElementsAre(StartsWith("tenants[0].routers: got m, want the "
                                                         "default router 'linear' among them")));
}

TEST(Config, ListensAnywhereWhenAuthNoneIsSaid) {
  const std::string open = "model: {path: /m}\nlisten: {grpc: '0.0.0.0:1', http: '[::]:2'}\n";
  // Nothing listens on listen.http.
  EXPECT_THAT(ViolationsOf(open), ElementsAre(StartsWith("auth.mode: got nothing")));
  EXPECT_TRUE(ParseConfig(open + "auth: {mode: none}", Options()).ok());
}

TEST(Config, OpsMayListenAnywhere) {
  EXPECT_TRUE(ParseConfig("model: {path: /m}\nlisten: {ops: '0.0.0.0:9400'}", Options()).ok());
}

TEST(Config, SeveralEndpointsMayTakeAnyFreePort) {
  EXPECT_TRUE(ParseConfig("model: {path: /m}\nlisten: {grpc: '127.0.0.1:0', http: "
                          "'127.0.0.1:0', ops: 'localhost:0'}",
                          Options())
                  .ok());
}

TEST(Config, AnEndpointThatNothingListensOnIsFree) {
  EXPECT_TRUE(ParseConfig("model: {path: /m}\nlisten: {ops: '127.0.0.1:8080'}", Options()).ok());
}

TEST(Config, OverridesApplyInOrder) {
  const auto config = ParseConfig(
      kExample,
      Options({"engine.max_batch=8", "engine.max_batch=16", "tenants[0].routers=[mlp-v3, linear]",
               "tenants[1].name=beta", "tenants[1].weight=3", "log.format=json", "state_dir="}));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->engine().max_batch(), 16);
  EXPECT_THAT(config->tenants(0).routers(), ElementsAre("mlp-v3", "linear"));
  ASSERT_EQ(config->tenants_size(), 2);
  EXPECT_EQ(config->tenants(1).name(), "beta");
  EXPECT_EQ(config->tenants(1).weight(), 3);
  EXPECT_EQ(config->log().format(), v1::LogConfig::FORMAT_JSON);
  EXPECT_EQ(config->state_dir(), "");
}

TEST(Config, OverridesSufficeWithoutAFilesContent) {
  const auto config = ParseConfig("", Options({"model.path=/m"}));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model().path(), "/m");
}

TEST(Config, BadOverridesSayWhy) {
  const std::vector<BadFile> overrides = {
      {"engine.max_batch", "--set 'engine.max_batch': got no '=', want path=value"},
      {"=1", "--set '=1': got path '', want a path such as tenants[0].weight"},
      {"engine..x=1", "--set 'engine..x=1': got path 'engine..x', want a path"},
      {"tenants[x].name=1", "--set 'tenants[x].name=1': got path 'tenants[x].name', want a path"},
      {"tenants[0=1", "--set 'tenants[0=1': got path 'tenants[0', want a path"},
      {"tenants[7].name=a", "--set 'tenants[7].name=a': got index 7, want at most 1"},
      {"tenants.name=a", "--set 'tenants.name=a': got a list, want a map"},
      {"drain_timeout[0]=a", "--set 'drain_timeout[0]=a': got '30s', want a list"},
      {"engine.max_batch={", "--set 'engine.max_batch={': got YAML, line 1, column 1: "},
      {"engine.max_batch=0", "engine.max_batch: got '0', want an integer from 1 to 4096"},
      {"engine.max_bacth=1", "engine.max_bacth: got an unknown field, want max_batch"},
  };
  for (const auto& [override, violation] : overrides) {
    SCOPED_TRACE(override);
    EXPECT_THAT(ViolationsOf(kExample, {override}), ElementsAre(StartsWith(violation)));
  }
}

TEST(Config, PrintedConfigurationReadsBackAsItself) {
  const auto config = ParseConfig(kExample, Options({"engine.kv_memory=3MiB"}));
  ASSERT_TRUE(config.ok()) << config.status();
  const auto again = ParseConfig(ToYaml(*config), Options());
  ASSERT_TRUE(again.ok()) << again.status() << "\n" << ToYaml(*config);
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(*config, *again))
      << ToYaml(*config);
  EXPECT_THAT(ToYaml(*config), HasSubstr("kv_memory: 3MiB"));
}

class ConfigFile : public testing::Test {
 protected:
  ConfigFile()
      : folder_(testing::TempDir() + "/penstock_config_" +
                testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::filesystem::create_directories(folder_);
  }
  ~ConfigFile() override { std::filesystem::remove_all(folder_); }

  std::string Write(std::string_view text) {
    const std::string path = folder_ + "/penstock.yaml";
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }

  const std::string folder_;
};

TEST_F(ConfigFile, IsReadFromDisk) {
  const auto config = LoadConfig(Write(kExample), Options());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model().path(), "/models/qwen");
}

TEST_F(ConfigFile, MissingOnesAreNamed) {
  const auto config = LoadConfig(folder_ + "/none.yaml", Options());
  EXPECT_EQ(config.status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(std::string(config.status().message()), folder_ + "/none.yaml: no such file");
  EXPECT_EQ(std::string(LoadConfig(folder_, Options()).status().message()),
            folder_ + ": got a folder, want a file");
}

TEST(Config, TheExampleIsValidAndWarnsOfNothing) {
  const ConfigCheck check =
      CheckConfig(PENSTOCK_EXAMPLE_CONFIG, {.overrides = {}, .built_in_routers = {"linear"}},
                  absl::UnixEpoch());
  EXPECT_EQ(check.text,
            absl::StrCat(PENSTOCK_EXAMPLE_CONFIG,
                         ": valid\nexperiment mlp-vs-linear: 2000 of 10000 buckets exposed (20 %); "
                         "arms linear 50 % (control), mlp 50 %\n"));
}

TEST_F(ConfigFile, CheckPrintsEveryViolationOnItsLine) {
  const ConfigCheck good = CheckConfig(Write(kExample), Options(), absl::UnixEpoch());
  EXPECT_TRUE(good.valid);
  EXPECT_THAT(good.text,
              testing::AllOf(
                  testing::HasSubstr("penstock.yaml: valid\nexperiment mlp-vs-linear: 1000 of 5000 "
                                     "buckets exposed (20 %); arms control 50 % (control), mlp 50 "
                                     "%\nwarning: "),
                  testing::HasSubstr("\nwarning: experiments.list[0].primary.metric: "
                                     "paired_logprob is not measured ")));
  const ConfigCheck bad =
      CheckConfig(Write("engine: {max_batch: 0}"), Options(), absl::UnixEpoch());
  EXPECT_FALSE(bad.valid);
  EXPECT_EQ(bad.text,
            "engine.max_batch: got '0', want an integer from 1 to 4096\n"
            "model.path: got nothing, want the folder of a checkpoint\n");
}

TEST(Config, ManyViolationsAreCounted) {
  std::string yaml = "model: {path: /m}\ntenants:\n";
  for (int i = 0; i < 500; ++i) absl::StrAppend(&yaml, "- {name: t", i, ", weight: x}\n");
  const auto violations = ViolationsOf(yaml);
  ASSERT_EQ(violations.size(), 101);
  EXPECT_EQ(violations.back(), "and 400 more");
}

// Ten thousand random edits of a valid file: each is read or refused, with a message.
TEST(Config, NeverCrashesOnDamagedFiles) {
  std::mt19937 random(7);
  const std::string pieces[] = {"{",
                                "}",
                                "[",
                                "]",
                                ":",
                                "- ",
                                "&a ",
                                "*a",
                                "!!int ",
                                "\"",
                                "'",
                                "\n",
                                "|",
                                ">",
                                "\t",
                                "\\x",
                                "%",
                                "---\n",
                                "? ",
                                "#",
                                "9999999999999999999999",
                                "\xff",
                                std::string(1, '\0'),
                                "<<: "};
  int read = 0;
  for (int round = 0; round < 10'000; ++round) {
    std::string yaml = kExample;
    for (int edits = 1 + random() % 4; edits > 0; --edits) {
      const std::size_t at = random() % yaml.size();
      switch (random() % 3) {
        case 0:
          yaml.erase(at, 1 + random() % 8);
          break;
        case 1:
          yaml.insert(at, pieces[random() % std::size(pieces)]);
          break;
        default:
          yaml[at] = static_cast<char>(random());
      }
    }
    const auto config = ParseConfig(yaml, Options());
    read += config.ok();
    if (!config.ok()) {
      EXPECT_FALSE(config.status().message().empty());
    }
  }
  EXPECT_GT(read, 0);
  EXPECT_LT(read, 10'000);
}

}  // namespace
}  // namespace penstock
