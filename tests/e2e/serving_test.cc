// The main job, through the real binary and the wire.
#include <signal.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "clients/cpp/cli/http_get.h"
#include "clients/cpp/cli/metrics_page.h"
#include "clients/cpp/client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/e2e/server_process.h"
#include "tests/support/temporary_folder.h"

namespace penstock {
namespace {

using client::Client;
using ::testing::HasSubstr;
using ::testing::Not;

v1::GenerateRequest Request(const std::string& text, const std::string& router, int tokens) {
  v1::GenerateRequest request;
  request.set_text(text);
  request.set_router(router);
  request.mutable_stopping()->set_max_new_tokens(tokens);
  request.mutable_stopping()->set_ignore_eos(true);
  request.mutable_response()->set_token_ids(true);
  request.mutable_response()->set_logprobs(2);
  request.mutable_sampling()->set_temperature(0.8);
  request.mutable_sampling()->set_seed(11);
  return request;
}

client::MetricsPage Metrics(const ServerProcess& server, const std::string& path) {
  const auto text = client::HttpGet(server.ops(), path, absl::Seconds(10));
  EXPECT_TRUE(text.ok()) << text.status();
  const auto page = client::MetricsPage::Parse(*text);
  EXPECT_TRUE(page.ok()) << page.status();
  return *page;
}

// A streamed answer, put together, and the call to wait for.
struct Streamed {
  v1::GenerateResponse response;
  std::shared_ptr<client::GenerateCall> call;
};

std::unique_ptr<Streamed> Stream(Client* client, const v1::GenerateRequest& request) {
  auto streamed = std::make_unique<Streamed>();
  v1::GenerateResponse* response = &streamed->response;
  streamed->call =
      client->StartGenerate(request, {.on_message =
                                          [response](const v1::GenerateStreamResponse& message) {
                                            client::MergeMessage(message, *response);
                                          },
                                      .on_done = [](const absl::Status&) {}});
  return streamed;
}

std::map<std::string, int> RequestsInFlight(Client* client) {
  const auto list = client->ListRouters();
  EXPECT_TRUE(list.ok()) << list.status();
  std::map<std::string, int> counts;
  for (const v1::RouterDescription& router : list->routers())
    counts[router.name()] = router.requests_in_flight();
  return counts;
}

// Token ids and log-probabilities, to the bit.
std::string Exactly(const v1::GenerateResponse& response) {
  std::string text;
  for (const v1::Choice& choice : response.choices()) {
    for (const v1::TokenScore& score : choice.scores()) {
      const float logprob = score.logprob();
      std::uint32_t bits = 0;
      std::memcpy(&bits, &logprob, sizeof(bits));
      absl::StrAppend(&text, score.token_id(), ":", absl::Hex(bits), " ");
    }
  }
  return text;
}

TEST(ServingTest, AnswersUnderEveryRouterTheSameAloneAndAmongOthers) {
  const TinyModel& model = TinyModel::Get();
  ServerProcess server(model.Config());
  const auto client = server.Connect();
  std::map<std::string, std::string> alone;
  for (const std::string& kind : model.kinds()) {
    const auto response = client->Generate(Request("alone or not", kind, 24));
    ASSERT_TRUE(response.ok()) << kind << ": " << response.status();
    EXPECT_EQ(response->assignment().router(), kind);
    EXPECT_EQ(response->assignment().reason(), "explicit");
    EXPECT_EQ(response->usage().completion_tokens(), 24);
    alone[kind] = Exactly(*response);
  }
  std::set<std::string> distinct;
  for (const auto& [kind, answer] : alone) distinct.insert(answer);
  EXPECT_GT(distinct.size(), 3u) << "routers hardly change the answer";

  std::vector<std::unique_ptr<Streamed>> calls;
  std::vector<std::string> kinds;
  for (int i = 0; i < 32; ++i) {
    const std::string kind = model.kinds()[i % model.kinds().size()];
    kinds.push_back(i % 2 == 0 ? kind : "");
    const std::string text =
        i % 2 == 0 ? "alone or not"
                   : absl::StrCat("another prompt, of another length ", std::string(i, 'x'));
    calls.push_back(Stream(client.get(), Request(text, kind, 24)));
  }
  for (std::size_t i = 0; i < calls.size(); ++i) {
    ASSERT_TRUE(calls[i]->call->Wait().ok());
    if (!kinds[i].empty()) {
      EXPECT_EQ(Exactly(calls[i]->response), alone[kinds[i]]) << kinds[i];
    }
  }
}

TEST(ServingTest, CountsEveryExpertSlotAfterMixedTraffic) {
  const TinyModel& model = TinyModel::Get();
  ServerProcess server(model.Config());
  const auto client = server.Connect();
  std::vector<std::unique_ptr<Streamed>> calls;
  for (int i = 0; i < 24; ++i) {
    const std::string kind = model.kinds()[i % model.kinds().size()];
    calls.push_back(Stream(client.get(), Request(std::string(1 + 5 * i, 'a' + i), kind, 1 + i)));
  }
  for (const auto& call : calls) ASSERT_TRUE(call->call->Wait().ok());
  const auto info = client->GetModelInfo();
  ASSERT_TRUE(info.ok());
  const client::MetricsPage metrics = Metrics(server, "/metrics"),
                            experts = Metrics(server, "/metrics/experts");
  for (const std::string& kind : model.kinds()) {
    const auto tokens = metrics.Sum("penstock_router_tokens_total", {{"router", kind}});
    ASSERT_TRUE(tokens.has_value()) << kind;
    EXPECT_GT(*tokens, 0) << kind;
    for (const int layer : info->sparse_layers()) {
      EXPECT_EQ(experts.Sum("penstock_expert_tokens_total",
                            {{"router", kind}, {"layer", absl::StrCat(layer)}}),
                *tokens * info->experts_per_token())
          << kind << " layer " << layer;
    }
  }
  const auto stats = client->GetExpertStats("");
  ASSERT_TRUE(stats.ok());
  EXPECT_EQ(stats->routers_size(), static_cast<int>(model.kinds().size()));
}

TEST(ServingTest, SwappingARouterTouchesNoRequestInFlight) {
  const TinyModel& model = TinyModel::Get();
  ServerProcess server(model.Config());
  const auto client = server.Connect();
  const std::string kind = model.kinds().back(), other = model.kinds().front();
  const auto before = client->Generate(Request("swap", kind, 150));
  ASSERT_TRUE(before.ok());
  const auto running = Stream(client.get(), Request("swap", kind, 150));
  while (RequestsInFlight(client.get())[kind] == 0) {
  }
  v1::LoadRouterRequest load;
  load.set_name(kind);
  load.set_path(other);
  EXPECT_EQ(client->LoadRouter(load).status().code(), absl::StatusCode::kAlreadyExists);
  load.set_replace(true);
  const auto swapped = client->LoadRouter(load);
  ASSERT_TRUE(swapped.ok()) << swapped.status();
  EXPECT_EQ(swapped->router().requests_in_flight(), 0)
      << "those of the replaced package are not its own";
  EXPECT_EQ(swapped->replaced_fingerprint(), before->assignment().package_fingerprint());
  ASSERT_TRUE(running->call->Wait().ok());
  EXPECT_EQ(Exactly(running->response), Exactly(*before));
  const auto after = client->Generate(Request("swap", kind, 150));
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(after->assignment().package_fingerprint(), swapped->router().package_fingerprint());
  EXPECT_NE(Exactly(*after), Exactly(*before));
}

TEST(ServingTest, AnUnloadedRouterLeavesTheMetrics) {
  const TinyModel& model = TinyModel::Get();
  ServerProcess server(model.Config());
  const auto client = server.Connect();
  const std::string kind = model.kinds().back();
  ASSERT_TRUE(client->Generate(Request("x", kind, 3)).ok());
  EXPECT_TRUE(
      Metrics(server, "/metrics").Sum("penstock_requests_total", {{"router", kind}}).has_value());
  ASSERT_TRUE(client->UnloadRouter(kind).ok());
  EXPECT_FALSE(
      Metrics(server, "/metrics").Sum("penstock_requests_total", {{"router", kind}}).has_value());
  EXPECT_FALSE(Metrics(server, "/metrics/experts")
                   .Sum("penstock_expert_tokens_total", {{"router", kind}})
                   .has_value());
  EXPECT_EQ(client->Generate(Request("x", kind, 3)).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(client->UnloadRouter("linear").code(), absl::StatusCode::kFailedPrecondition);
}

TEST(ServingTest, RefusesPackagesOutsideTheRoot) {
  const TinyModel& model = TinyModel::Get();
  ServerProcess server(model.Config());
  const auto client = server.Connect();
  const std::string link = model.folder() + "/routers/way-out";
  std::filesystem::create_directory_symlink(model.folder() + "/model", link);
  for (const std::string& path : {std::string("../model"), std::string("way-out"),
                                  model.folder() + "/model", std::string("nowhere")}) {
    v1::LoadRouterRequest load;
    load.set_name("bad");
    load.set_path(path);
    const absl::Status status = client->LoadRouter(load).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << path << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("want a folder inside routers.root"));
  }
  std::filesystem::remove(link);
}

TEST(ServingTest, PinsAndAllowedRoutersComeFromTheConfiguration) {
  const TinyModel& model = TinyModel::Get();
  const std::string pin = model.kinds().front();
  ServerProcess server(
      model.Config("tenants:\n  - {name: acme, routers: [" + pin + "], pin: " + pin + "}\n"));
  const auto client = server.Connect("acme");
  const auto response = client->Generate(Request("x", "", 2));
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->assignment().router(), pin);
  EXPECT_EQ(response->assignment().reason(), "pinned");
  EXPECT_EQ(client->Generate(Request("x", model.kinds().back(), 2)).status().code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(server.Connect("nobody")->Generate(Request("x", "", 2)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ServingTest, ADeadlineIsKept) {
  ServerProcess server(TinyModel::Get().Config());
  const auto client = server.Connect();
  const auto response = client->Generate(Request("x", "", 200), {.timeout = absl::Milliseconds(5)});
  EXPECT_EQ(response.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(client->Generate(Request("x", "", 2)).ok());
}

TEST(ServingTest, ReloadAppliesTenantsAndKeepsTheOldStateOnABadFile) {
  const TinyModel& model = TinyModel::Get();
  ServerProcess server(model.Config());
  WriteFile(server.config_file(), model.Config("tenants: [{name: acme}]\ndrain_timeout: 7s\n"));
  server.Signal(SIGHUP);
  ASSERT_TRUE(server.WaitForLog(" reloaded "));
  EXPECT_THAT(server.log(), HasSubstr("takes effect at restart"));
  const auto acme = server.Connect("acme");
  EXPECT_TRUE(acme->Generate(Request("x", "", 2)).ok());
  EXPECT_EQ(Metrics(server, "/metrics").Sum("penstock_config_last_reload_successful"), 1);

  WriteFile(server.config_file(), "model: {path: x}\nnonsense: 1\n");
  server.Signal(SIGHUP);
  ASSERT_TRUE(server.WaitForLog(" reload failed"));
  EXPECT_TRUE(acme->Generate(Request("x", "", 2)).ok());
  EXPECT_EQ(Metrics(server, "/metrics").Sum("penstock_config_last_reload_successful"), 0);
}

TEST(ServingTest, ReloadMovesTheQueuesBoundAndSaysWhatGrpcKeeps) {
  const auto config = [](int max_queue, const std::string& more) {
    std::string text = TinyModel::Get().Config();
    const std::string limits = "limits: {";
    return text.insert(text.find(limits) + limits.size(),
                       absl::StrCat("max_queue: ", max_queue, ", ", more));
  };
  ServerProcess server(config(64, ""), {"--set", "engine.max_batch=1"});
  const auto client = server.Connect();
  v1::GenerateRequest many = Request("queue", "", 2);
  many.mutable_sampling()->set_n(16);
  EXPECT_TRUE(client->Generate(many).ok());
  WriteFile(server.config_file(), config(4, "max_message_bytes: 1KiB, max_header_bytes: 2KiB, "));
  server.Signal(SIGHUP);
  ASSERT_TRUE(server.WaitForLog(" reloaded "));
  EXPECT_THAT(server.log(), HasSubstr("limits.max_queue: changed from 64 to 4\""));
  EXPECT_THAT(
      server.log(),
      HasSubstr("limits.max_message_bytes: changed from 4MiB to 1KiB, takes effect at restart"));
  EXPECT_THAT(
      server.log(),
      HasSubstr("limits.max_header_bytes: changed from 16KiB to 2KiB, takes effect at restart"));
  const absl::Status refused = client->Generate(many).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("limits.max_queue is 4"));
  v1::TokenizeRequest long_text;
  long_text.set_text(std::string(2000, 'x'));
  EXPECT_TRUE(client->Tokenize(long_text).ok())
      << "the old bound on messages stays until a restart";
}

TEST(ServingTest, ReloadBringsBackWhatTheFileHasOrChangesNothing) {
  const TinyModel& model = TinyModel::Get();
  ServerProcess server(model.Config(),
                       {"--set", absl::StrCat("routers.max_loaded=", model.kinds().size())});
  const auto client = server.Connect();
  const std::string kind = model.kinds().back();
  ASSERT_NE(kind, "linear");
  ASSERT_TRUE(client->UnloadRouter(kind).ok());
  v1::LoadRouterRequest load;
  load.set_name("operators-own");
  load.set_path(kind);
  ASSERT_TRUE(client->LoadRouter(load).ok());
  server.Signal(SIGHUP);
  ASSERT_TRUE(server.WaitForLog(" reload failed"));
  EXPECT_THAT(server.log(),
              HasSubstr(absl::StrCat("routers.max_loaded is ", model.kinds().size())));
  EXPECT_FALSE(RequestsInFlight(client.get()).contains(kind));
  ASSERT_TRUE(client->UnloadRouter("operators-own").ok());
  server.Signal(SIGHUP);
  ASSERT_TRUE(server.WaitForLog(" reloaded "));
  EXPECT_TRUE(client->Generate(Request("x", kind, 2)).ok());
}

TEST(ServingTest, LogsOneLineForEachRequestAndPromptsOnlyWhenAsked) {
  const auto config = [](const char* log) {
    return TinyModel::Get().Config(absl::StrCat("log: {", log, "}\n"));
  };
  ServerProcess server(config("format: text"));
  const auto client = server.Connect();
  const auto reload = [&](const char* log) {
    WriteFile(server.config_file(), config(log));
    server.Signal(SIGHUP);
  };
  reload("format: json");
  ASSERT_TRUE(server.WaitForLog("\"reloaded\""));
  const auto ask = [&](const std::string& id, int tokens) {
    v1::GenerateRequest request = Request("a secret prompt", "", tokens);
    request.set_request_id(id);
    return client->Generate(request).status();
  };
  EXPECT_TRUE(ask("first", 3).ok());
  EXPECT_FALSE(ask("refused", 100000).ok());
  ASSERT_TRUE(server.WaitForLog("stopping.max_new_tokens"));
  EXPECT_THAT(server.log(), Not(HasSubstr("secret")));
  reload("format: json, prompts: true");
  ASSERT_TRUE(server.WaitForLog("log.prompts: changed from false to true"));
  EXPECT_TRUE(ask("second", 3).ok());
  ASSERT_TRUE(server.WaitForLog("a secret prompt"));

  std::map<std::string, int> lines;
  const std::string log = server.log();
  for (const std::string& text : std::vector<std::string>(
           absl::StrSplit(log.substr(log.find('{')), '\n', absl::SkipEmpty()))) {
    const nlohmann::json line = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    ASSERT_TRUE(line.is_object()) << text;
    if (line["message"] == "request refused") ++lines["refused"];
    if (line["message"] != "request") continue;
    ++lines[line["request_id"]];
    EXPECT_EQ(line["router"], "linear");
    EXPECT_EQ(line["reason"], "default");
    EXPECT_EQ(line["code"], "OK");
    EXPECT_EQ(line["finish"], "length");
    EXPECT_EQ(line["completion_tokens"], 3);
    EXPECT_GT(line["total_seconds"], 0);
  }
  EXPECT_EQ(lines, (std::map<std::string, int>{{"first", 1}, {"refused", 1}, {"second", 1}}));
}

TEST(ServingTest, SigtermLetsRequestsFinish) {
  ServerProcess server(TinyModel::Get().Config());
  const auto client = server.Connect();
  const auto running = Stream(client.get(), Request("drain", "", 200));
  while (client->GetLoad()->running() == 0) {
  }
  server.Signal(SIGTERM);
  ASSERT_TRUE(server.WaitForLog(" draining "));
  EXPECT_EQ(client->Generate(Request("late", "", 2)).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_TRUE(running->call->Wait().ok());
  EXPECT_EQ(running->response.usage().completion_tokens(), 200);
  EXPECT_EQ(server.Wait(), 0);
}

TEST(ServingTest, ASecondSigtermEndsItNow) {
  ServerProcess server(TinyModel::Get().Config());
  const auto client = server.Connect();
  std::vector<std::unique_ptr<Streamed>> running;
  for (int i = 0; i < 200; ++i)
    running.push_back(Stream(client.get(), Request(absl::StrCat("drain ", i), "", 200)));
  while (client->GetLoad()->running() == 0) {
  }
  server.Signal(SIGTERM);
  ASSERT_TRUE(server.WaitForLog(" draining "));
  server.Signal(SIGTERM);
  EXPECT_EQ(server.Wait(), 0);
  int cut = 0;
  for (const auto& call : running)
    cut += call->call->Wait().code() == absl::StatusCode::kUnavailable;
  EXPECT_GT(cut, 0);
}

TEST(ServingTest, HealthPagesAndConfiguration) {
  ServerProcess server(TinyModel::Get().Config());
  for (const char* path : {"/healthz", "/readyz", "/debug/config"}) {
    EXPECT_TRUE(client::HttpGet(server.ops(), path, absl::Seconds(10)).ok()) << path;
  }
  EXPECT_THAT(*client::HttpGet(server.ops(), "/debug/config", absl::Seconds(10)),
              HasSubstr("max_batch: 64"));
  EXPECT_FALSE(client::HttpGet(server.ops(), "/nowhere", absl::Seconds(10)).ok());
}

}  // namespace
}  // namespace penstock
