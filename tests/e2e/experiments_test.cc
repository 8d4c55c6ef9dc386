// Experiments on live traffic through the real binaries: what a guardrail halts, and what outlives
// the server.
#include <signal.h>
#include <sys/stat.h>

#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "clients/cpp/cli/http_get.h"
#include "clients/cpp/cli/metrics_page.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/e2e/damaged_router.h"
#include "tests/e2e/server_process.h"
#include "tests/support/temporary_folder.h"

namespace penstock {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class ExperimentsE2eTest : public ::testing::Test {
 protected:
  // linear against `router`, half and half by request.
  std::string Config(const std::string& router, const std::string& guardrails) const {
    std::string text = TinyModel::Get().Config();
    absl::StrAppend(&text, "    - {name: ", router, ", path: ", router, "}\n");
    absl::StrAppend(&text, "state_dir: ", state_.path(), "/state\n", R"(experiments:
  traffic_salt: t
  list:
    - name: trial
      audience: {tenants: [default]}
      unit: request
      exposure: 100%
      arms: [{name: control, router: linear, share: 5000}, {name: new, router: )",
                    router, R"(, share: 5000}]
      control: control
      primary: {metric: paired_logprob, better: higher, min_effect: 0.005}
      guardrails: )",
                    guardrails, "\n");
    return text;
  }

  static client::MetricsPage Metrics(const ServerProcess& server) {
    const auto text = client::HttpGet(server.ops(), "/metrics", absl::Seconds(10));
    EXPECT_TRUE(text.ok()) << text.status();
    const auto page = client::MetricsPage::Parse(*text);
    EXPECT_TRUE(page.ok()) << page.status();
    return *page;
  }

  static std::optional<double> Halted(const ServerProcess& server, const std::string& arm) {
    return Metrics(server).Sum("penstock_experiment_arm_halted",
                               {{"experiment", "trial"}, {"arm", arm}});
  }

  // A request id whose arm is `arm` while none is halted.
  static std::string UnitOf(const std::string& arm, client::Client* client) {
    for (int i = 0; i < 200; ++i) {
      v1::AssignRequest request;
      request.set_request_id(absl::StrCat("unit-", i));
      const auto response = client->Assign(request);
      EXPECT_TRUE(response.ok()) << response.status();
      if (response.ok() && response->arm() == arm) return request.request_id();
    }
    ADD_FAILURE() << "no unit of arm " << arm;
    return "";
  }

  static absl::StatusOr<v1::GenerateResponse> Ask(client::Client* client, const std::string& id,
                                                  int tokens = 2) {
    v1::GenerateRequest request;
    request.set_request_id(id);
    request.set_text("some text");
    request.mutable_stopping()->set_max_new_tokens(tokens);
    return client->Generate(request);
  }

  std::string StateFile() const { return state_.path() + "/state/experiments/trial.halts"; }

  TemporaryFolder state_;
};

constexpr char kIdle[] = "[{metric: idle_experts, max: 1, window: 10s, min_requests: 20}]";

TEST_F(ExperimentsE2eTest, AGuardrailHaltsACollapsedRouterUnderLoadAndItStaysHalted) {
  WriteCollapsedRouter();
  const std::string config = Config("collapsed", kIdle);
  std::string unit, revision;
  {
    ServerProcess server(config);
    const auto client = server.Connect();
    unit = UnitOf("new", client.get());
    const auto before = Ask(client.get(), unit);
    ASSERT_TRUE(before.ok()) << before.status();
    EXPECT_EQ(before->assignment().router(), "collapsed");
    revision = before->assignment().revision();
    EXPECT_THAT(server.log(), HasSubstr("experiment revision"));
    EXPECT_EQ(Halted(server, "new"), 0);

    const std::string report = state_.path() + "/bench.json";
    const absl::Time begin = absl::Now();
    const ProgramResult bench =
        RunProgram("penstock-bench",
                   {"--server", server.grpc(), "--concurrency", "8", "--requests", "300",
                    "--prompt-tokens", "16-32", "--output-tokens", "4-16", "--json", report});
    EXPECT_EQ(bench.exit_code, 0) << "no request is lost\n" << bench.output;
    ASSERT_TRUE(server.WaitForLog("guardrail halted an arm")) << server.log();
    EXPECT_THAT(server.log(), HasSubstr("experiment=trial arm=new metric=idle_experts value=2"));

    const auto list = client->ListExperiments();
    ASSERT_TRUE(list.ok()) << list.status();
    ASSERT_EQ(list->experiments_size(), 1);
    const v1::ExperimentDescription& trial = list->experiments(0);
    EXPECT_EQ(trial.revision(), revision);
    EXPECT_EQ(trial.state(), v1::EXPERIMENT_STATE_RUNNING);
    EXPECT_FALSE(trial.counts_exposures());
    ASSERT_EQ(trial.arms_size(), 2);
    EXPECT_FALSE(trial.arms(0).has_halt());
    const v1::ArmHalt& halt = trial.arms(1).halt();
    EXPECT_EQ(halt.source(), v1::ArmHalt::SOURCE_GUARDRAIL);
    EXPECT_EQ(halt.metric(), "idle_experts");
    EXPECT_EQ(halt.value(), 2);
    EXPECT_EQ(halt.bound(), 1);
    EXPECT_THAT(halt.reason(), HasSubstr("idle_experts is 2, at most 1 is allowed, over "));
    const absl::Time at =
        absl::FromUnixSeconds(halt.time().seconds()) + absl::Nanoseconds(halt.time().nanos());
    EXPECT_LE(at - begin, absl::Seconds(10)) << "within the guardrail's window";

    const ProgramResult words =
        RunProgram("penstock-cli", {"--server", server.grpc(), "report", "trial"});
    EXPECT_EQ(words.exit_code, 0) << words.output;
    EXPECT_THAT(absl::StrReplaceAll(words.output, {{"\n", " "}}),
                HasSubstr("Arm new is HALTED: by guardrail at "));
    const ProgramResult json =
        RunProgram("penstock-cli", {"--server", server.grpc(), "report", "trial", "--json"});
    const nlohmann::json arms = nlohmann::json::parse(json.output).at("arms");
    ASSERT_EQ(arms.size(), 2u);
    EXPECT_EQ(arms[0].value("halted", ""), "");
    EXPECT_THAT(arms[1].at("halted").get<std::string>(),
                HasSubstr("idle_experts is 2, at most 1 is allowed, over "));

    const auto after = Ask(client.get(), unit);
    ASSERT_TRUE(after.ok()) << after.status();
    EXPECT_EQ(after->assignment().router(), "linear");
    EXPECT_EQ(after->assignment().reason(), "halted");
    EXPECT_EQ(after->assignment().revision(), revision) << "a halt starts no revision";
    server.Signal(SIGTERM);
    EXPECT_EQ(server.Wait(), 0);
  }
  {
    ServerProcess server(config);
    const auto client = server.Connect();
    EXPECT_EQ(Ask(client.get(), unit)->assignment().reason(), "halted") << "after a restart";
    const ProgramResult resumed = RunProgram(
        "penstock-cli", {"--server", server.grpc(), "experiments", "resume", "trial", "new"});
    EXPECT_EQ(resumed.exit_code, 0) << resumed.output;
    EXPECT_THAT(resumed.output, HasSubstr("analysis period 2"));
    EXPECT_EQ(Ask(client.get(), unit)->assignment().router(), "collapsed");
    const ProgramResult halted =
        RunProgram("penstock-cli", {"--server", server.grpc(), "experiments", "halt", "trial",
                                    "control", "--reason", "stop it all"});
    EXPECT_EQ(halted.exit_code, 0) << halted.output;
    EXPECT_THAT(halted.output, HasSubstr("halted: its control arm is"));
    EXPECT_EQ(Ask(client.get(), unit)->assignment().reason(), "default");
    const ProgramResult again = RunProgram(
        "penstock-cli", {"--server", server.grpc(), "experiments", "resume", "trial", "new"});
    EXPECT_EQ(again.exit_code, 1);
    EXPECT_THAT(again.output, HasSubstr("arm: got new, want one that is halted"));
    server.Signal(SIGTERM);
    EXPECT_EQ(server.Wait(), 0);
  }
  std::ofstream(StateFile(), std::ios::app) << "damage";
  ServerProcess server(config);
  EXPECT_THAT(server.log(), HasSubstr("trial.halts: damaged, set aside as "));
  EXPECT_EQ(Ask(server.Connect().get(), unit)->assignment().router(), "linear");
}

TEST_F(ExperimentsE2eTest, AReplicaTakesOverWhatItsPeersHalt) {
  WriteCollapsedRouter();
  const std::string config = Config("collapsed", "[]");
  ServerProcess first(config);
  const TemporaryFolder elsewhere;
  const std::string state = "state_dir=" + elsewhere.path() + "/state";
  const std::string resumed = "state_dir=" + elsewhere.path() + "/resumed";
  std::string unit;
  {
    ServerProcess second(
        config, {"--peers", first.ops(), "--set", "experiments.peers.interval=1s", "--set", state});
    const auto client = second.Connect();
    unit = UnitOf("new", client.get());
    const ProgramResult halted =
        RunProgram("penstock-cli", {"--server", first.grpc(), "experiments", "halt", "trial", "new",
                                    "--reason", "it answers nonsense"});
    ASSERT_EQ(halted.exit_code, 0) << halted.output;
    ASSERT_TRUE(second.WaitForLog("halt of a peer taken over")) << second.log();
    EXPECT_EQ(Ask(client.get(), unit)->assignment().reason(), "halted");
    const auto list = client->ListExperiments();
    ASSERT_TRUE(list.ok()) << list.status();
    const v1::ArmHalt& halt = list->experiments(0).arms(1).halt();
    EXPECT_EQ(halt.source(), v1::ArmHalt::SOURCE_PEER);
    EXPECT_EQ(halt.reason(), "on " + first.ops() + ": it answers nonsense");
    EXPECT_EQ(Halted(second, "new"), 1);
    EXPECT_THAT(
        RunProgram("penstock-cli", {"--server", second.grpc(), "experiments", "list"}).output,
        HasSubstr("halted by another replica"));
    EXPECT_THAT(*client::HttpGet(second.ops(), "/halts", absl::Seconds(10)),
                Not(HasSubstr("nonsense")))
        << "it is passed on by whose it is alone";
    second.Signal(SIGTERM);
    EXPECT_EQ(second.Wait(), 0);
  }
  {
    // Resumed here: over a restart too, while the peer still shows its halt.
    const auto again = [&] {
      return std::make_unique<ServerProcess>(
          config, std::vector<std::string>{"--peers", first.ops(), "--set",
                                           "experiments.peers.interval=1s", "--set", resumed});
    };
    auto third = again();
    ASSERT_TRUE(third->WaitForLog("halt of a peer taken over")) << third->log();
    ASSERT_EQ(RunProgram("penstock-cli",
                         {"--server", third->grpc(), "experiments", "resume", "trial", "new"})
                  .exit_code,
              0);
    third->Signal(SIGTERM);
    EXPECT_EQ(third->Wait(), 0);
    third = again();
    // The page has both: with this one the other was read.
    ASSERT_EQ(RunProgram("penstock-cli",
                         {"--server", first.grpc(), "experiments", "halt", "trial", "control"})
                  .exit_code,
              0);
    ASSERT_TRUE(third->WaitForLog("halt of a peer taken over")) << third->log();
    const auto list = third->Connect()->ListExperiments();
    ASSERT_TRUE(list.ok()) << list.status();
    EXPECT_TRUE(list->experiments(0).arms(0).has_halt());
    EXPECT_FALSE(list->experiments(0).arms(1).has_halt()) << "an operator resumed it";
  }
  // The peer is gone when it comes back: what was taken over was kept.
  first.Signal(SIGTERM);
  EXPECT_EQ(first.Wait(), 0);
  ServerProcess second(
      config, {"--peers", first.ops(), "--set", "experiments.peers.interval=1s", "--set", state});
  EXPECT_EQ(Ask(second.Connect().get(), unit)->assignment().reason(), "halted");
  EXPECT_TRUE(second.WaitForLog("halts of a peer are not known"));
}

TEST_F(ExperimentsE2eTest, AnInfiniteLogitHaltsItsArmAtOnceAndFailsItsRequestAlone) {
  WriteOverflowingRouter();
  ServerProcess server(Config("overflowing", "[]"));
  const auto client = server.Connect();
  const std::string bad = UnitOf("new", client.get()), good = UnitOf("control", client.get());
  const absl::Status failed = Ask(client.get(), bad).status();
  EXPECT_EQ(failed.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(failed.message()),
              HasSubstr("router \"overflowing\": non-finite logit in layer 1"));
  EXPECT_TRUE(Ask(client.get(), good).ok());
  ASSERT_TRUE(server.WaitForLog("guardrail halted an arm"));
  EXPECT_THAT(server.log(), HasSubstr("metric=non_finite_logits value=1 bound=0"));
  const auto after = Ask(client.get(), bad);
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_EQ(after->assignment().reason(), "halted");
}

TEST_F(ExperimentsE2eTest, AChangeOfTheFileReloadsItWithoutASignal) {
  WriteCollapsedRouter();
  const std::string config = Config("collapsed", "[]");
  ServerProcess server(config);
  const auto client = server.Connect();
  const std::string unit = UnitOf("new", client.get());
  const std::string revision = client->ListExperiments()->experiments(0).revision();
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = config;
    text.replace(text.find(from), from.size(), to);
    WriteFile(server.config_file(), text);
  };
  with("router: collapsed, share: 5000", "router: collapsed, share: 5000, halted: true");
  ASSERT_TRUE(server.WaitForLog("arms[new].halted: changed from false to true"));
  ASSERT_TRUE(server.WaitForLog(" reloaded "));
  EXPECT_EQ(Ask(client.get(), unit)->assignment().reason(), "halted");
  EXPECT_EQ(client->ListExperiments()->experiments(0).arms(1).halt().source(),
            v1::ArmHalt::SOURCE_CONFIGURATION);
  EXPECT_EQ(client->ListExperiments()->experiments(0).revision(), revision);

  with("unit: request", "unit: nonsense");
  ASSERT_TRUE(server.WaitForLog(" reload failed"));
  EXPECT_EQ(Metrics(server).Sum("penstock_config_last_reload_successful"), 0);
  EXPECT_EQ(Ask(client.get(), unit)->assignment().reason(), "halted") << "the old state stays";

  WriteFile(server.config_file(),
            absl::StrReplaceAll(config, {{"name: control", "name: first"},
                                         {"control: control", "control: first"}}));
  ASSERT_TRUE(server.WaitForLog("before=" + revision));
  const v1::ExperimentDescription trial = client->ListExperiments()->experiments(0);
  EXPECT_NE(trial.revision(), revision);
  EXPECT_EQ(trial.analysis_period(), 2) << "the file opened the arm";
}

TEST_F(ExperimentsE2eTest, CheckConfigSaysWhatAReloadChangesAndWhatBeginsAnew) {
  const std::string config = Config("collapsed", kIdle);
  const std::string running = state_.path() + "/running.yaml",
                    updated = state_.path() + "/new.yaml";
  WriteFile(running, config);
  const auto check = [&](const std::string& from, const std::string& to) {
    WriteFile(updated, absl::StrReplaceAll(config, {{from, to}}));
    return RunProgram("penstock", {"check-config", "--config", updated, "--running", running});
  };
  const ProgramResult ramp = check("exposure: 100%", "exposure: 50%");
  EXPECT_EQ(ramp.exit_code, 0);
  EXPECT_THAT(ramp.output, HasSubstr("experiments.list[trial].exposure: changed from 100% to 50%"));
  EXPECT_THAT(ramp.output, Not(HasSubstr("new revision")));
  const ProgramResult renamed = check("name: new", "name: newer");
  EXPECT_EQ(renamed.exit_code, 0);
  EXPECT_THAT(renamed.output, HasSubstr("experiment trial starts a new revision: what was"));
  EXPECT_EQ(check("unit: request", "unit: thing").exit_code, 1);
}

TEST_F(ExperimentsE2eTest, AssignExplainsAndRefusesARouterThatTheFileDoesNotName) {
  const std::string file = state_.path() + "/config.yaml";
  WriteFile(file, Config("collapsed", kIdle));
  const auto assign = [&](const std::string& router) {
    return RunProgram("penstock", {"assign", "--config", file, "--router", router, "--unit", "u"});
  };
  const ProgramResult known = assign("collapsed");
  EXPECT_EQ(known.exit_code, 0) << known.output;
  EXPECT_THAT(known.output, HasSubstr("router collapsed, reason explicit"));
  EXPECT_EQ(assign("linear").exit_code, 0) << "the checkpoint's own";
  const ProgramResult unknown = assign("nope");
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_THAT(unknown.output, HasSubstr("--router: got 'nope', want one of linear, "));
  EXPECT_THAT(unknown.output, HasSubstr(", collapsed;"));
  EXPECT_THAT(unknown.output, HasSubstr("LoadRouter"));
}

TEST_F(ExperimentsE2eTest, WhereTheListenerIsPublicAUnixSocketOperatesTheServer) {
  WriteCollapsedRouter();
  const std::string socket = state_.path() + "/admin.sock";
  ServerProcess server(absl::StrReplaceAll(
      Config("collapsed", kIdle),
      {{"listen: {grpc: '127.0.0.1:0'",
        absl::StrCat("auth: {mode: none}\nlisten: {admin: ", socket, ", grpc: '0.0.0.0:0'")}}));
  const auto by = [](const std::string& address, std::vector<std::string> command) {
    command.insert(command.begin(), {"--server", address});
    return RunProgram("penstock-cli", command);
  };
  const ProgramResult refused = by(server.grpc(), {"experiments", "list"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.output, HasSubstr("call by the Unix socket listen.admin"));
  EXPECT_TRUE(Ask(server.Connect().get(), "r").ok()) << "requests are for everybody";

  struct stat status = {};
  ASSERT_EQ(stat(socket.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777u, 0600u);
  const ProgramResult halted =
      by("unix:" + socket, {"experiments", "halt", "trial", "new", "--reason", "by hand"});
  EXPECT_EQ(halted.exit_code, 0) << halted.output;
  const ProgramResult listed = by("unix:" + socket, {"experiments", "list"});
  EXPECT_EQ(listed.exit_code, 0) << listed.output;
  EXPECT_THAT(listed.output, HasSubstr("by hand"));
  const ProgramResult report =
      RunProgram("penstock", {"report", "trial", "--server", "unix:" + socket});
  EXPECT_EQ(report.exit_code, 0) << report.output;
  EXPECT_THAT(report.output, HasSubstr("HALTED"));
}

}  // namespace
}  // namespace penstock
