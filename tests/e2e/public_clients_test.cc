// What people call a gRPC server with: grpcurl and ghz, which learn the messages by reflection.
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "clients/cpp/cli/http_get.h"
#include "clients/cpp/cli/metrics_page.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "penstock/v1/admin.pb.h"
#include "penstock/v1/inference.pb.h"
#include "tests/e2e/server_process.h"
#include "tests/support/temporary_folder.h"

namespace penstock {
namespace {

using ::nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::SizeIs;

constexpr char kInference[] = "penstock.v1.InferenceService";
constexpr char kAdmin[] = "penstock.v1.AdminService";
// grpcurl exits with 64 + the status code.
constexpr int kInvalidArgument = 64 + 3;
constexpr int kNotFound = 64 + 5;

ProgramResult GoTool(const std::string& name, const std::vector<std::string>& arguments) {
  ProgramResult result = RunProgram(absl::StrCat(PENSTOCK_GO_TOOLS, "/", name), arguments);
  EXPECT_NE(result.exit_code, 127)
      << name << " is missing: run deploy/setup/install_dependencies.sh test";
  return result;
}

// JSON objects, one behind the other, as grpcurl prints the messages of a stream.
std::vector<json> Messages(const std::string& output) {
  std::vector<json> messages;
  std::string text;
  for (const absl::string_view line : absl::StrSplit(output, '\n')) {
    absl::StrAppend(&text, line, "\n");
    if (line != "}") continue;
    messages.push_back(json::parse(text));
    text.clear();
  }
  return messages;
}

std::set<std::string> Lines(const std::string& output) {
  return absl::StrSplit(output, '\n', absl::SkipEmpty());
}

class GrpcurlTest : public ::testing::Test {
 protected:
  ProgramResult Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "-plaintext");
    return GoTool("grpcurl", arguments);
  }
  ProgramResult Call(const std::string& method, const json& request) {
    return Run({"-d", request.dump(), server_.grpc(), method});
  }

  ServerProcess server_{TinyModel::Get().Config()};
};

TEST_F(GrpcurlTest, ListsAndDescribesEveryMethodByReflection) {
  const ProgramResult services = Run({server_.grpc(), "list"});
  ASSERT_EQ(services.exit_code, 0) << services.output;
  EXPECT_THAT(Lines(services.output), IsSupersetOf({kInference, kAdmin, "grpc.health.v1.Health"}));
  for (const auto* file :
       {v1::GenerateRequest::descriptor()->file(), v1::DrainRequest::descriptor()->file()}) {
    ASSERT_EQ(file->service_count(), 1);
    const auto& service = *file->service(0);
    std::set<std::string> methods;
    for (int i = 0; i < service.method_count(); ++i) methods.insert(service.method(i)->full_name());
    EXPECT_EQ(Lines(Run({server_.grpc(), "list", service.full_name()}).output), methods);
    const std::string description = Run({server_.grpc(), "describe", service.full_name()}).output;
    for (int i = 0; i < service.method_count(); ++i) {
      EXPECT_THAT(description, HasSubstr(absl::StrCat("rpc ", service.method(i)->name(), " (")));
    }
  }
  const ProgramResult message = Run({server_.grpc(), "describe", "penstock.v1.SamplingOptions"});
  EXPECT_THAT(message.output, HasSubstr("double temperature = 1"));
}

TEST_F(GrpcurlTest, GeneratesAtOnceAndAsAStream) {
  const json request = {{"text", "hello"},
                        {"requestId", "from-grpcurl"},
                        {"router", TinyModel::Get().kinds().back()},
                        {"sampling", {{"seed", 5}}},
                        {"stopping", {{"maxNewTokens", 12}, {"ignoreEos", true}}}};
  const ProgramResult unary = Call(absl::StrCat(kInference, "/Generate"), request);
  ASSERT_EQ(unary.exit_code, 0) << unary.output;
  json answer = json::parse(unary.output);
  EXPECT_EQ(answer["request_id"], "from-grpcurl");
  EXPECT_EQ(answer["assignment"]["router"], TinyModel::Get().kinds().back());
  EXPECT_EQ(answer["assignment"]["reason"], "explicit");
  EXPECT_EQ(answer["usage"]["completion_tokens"], 12);
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "FINISH_REASON_LENGTH");

  const ProgramResult stream = Call(absl::StrCat(kInference, "/GenerateStream"), request);
  ASSERT_EQ(stream.exit_code, 0) << stream.output;
  std::vector<json> messages = Messages(stream.output);
  ASSERT_THAT(messages, SizeIs(testing::Ge(2)));
  EXPECT_EQ(messages.front()["assignment"], answer["assignment"]);
  EXPECT_EQ(messages.back()["usage"]["completion_tokens"], 12);
  std::string text;
  for (const json& message : messages) {
    for (const json& delta : message.value("deltas", json::array()))
      text += delta.value("text", "");
  }
  EXPECT_EQ(text, answer["choices"][0].value("text", ""));
}

TEST_F(GrpcurlTest, AsksForHealthAndRouters) {
  for (const char* service : {"", kInference, kAdmin}) {
    const ProgramResult health = Call("grpc.health.v1.Health/Check", {{"service", service}});
    ASSERT_EQ(health.exit_code, 0) << health.output;
    EXPECT_EQ(json::parse(health.output)["status"], "SERVING") << service;
  }
  const ProgramResult list = Call(absl::StrCat(kAdmin, "/ListRouters"), json::object());
  ASSERT_EQ(list.exit_code, 0) << list.output;
  std::set<std::string> names;
  const json answer = json::parse(list.output);
  for (const json& router : answer.at("routers")) names.insert(router["name"].get<std::string>());
  EXPECT_EQ(names, std::set<std::string>(TinyModel::Get().kinds().begin(),
                                         TinyModel::Get().kinds().end()));
}

TEST_F(GrpcurlTest, ABadFieldComesBackByName) {
  const std::string generate = absl::StrCat(kInference, "/Generate");
  const ProgramResult number = Call(generate, {{"text", "x"}, {"sampling", {{"temperature", 9}}}});
  EXPECT_EQ(number.exit_code, kInvalidArgument);
  EXPECT_THAT(number.output,
              AllOf(HasSubstr("Code: InvalidArgument"),
                    HasSubstr("sampling.temperature: got 9, want a number in [0, 2]"),
                    HasSubstr("\"field\": \"sampling.temperature\"")));
  const ProgramResult router = Call(generate, {{"text", "x"}, {"router", "nowhere"}});
  EXPECT_EQ(router.exit_code, kNotFound);
  EXPECT_THAT(router.output, HasSubstr("router: got nowhere, want one of "));
}

TEST_F(GrpcurlTest, TheReadmesExamplesRun) {
  std::ifstream readme(PENSTOCK_SOURCE_DIR "/README.md");
  int examples = 0;
  for (std::string line; std::getline(readme, line);) {
    const std::string example(absl::StripAsciiWhitespace(line));
    if (!absl::StartsWith(example, "grpcurl ")) continue;
    ++examples;
    const std::string here = absl::StrReplaceAll(
        example, {{"127.0.0.1:50051", server_.grpc()}, {"localhost:50051", server_.grpc()}});
    ASSERT_NE(here, example) << "the example names no port of a server";
    const ProgramResult result =
        RunProgram("/bin/sh", {"-c", absl::StrCat(PENSTOCK_GO_TOOLS, "/", here)});
    EXPECT_EQ(result.exit_code, 0) << example << "\n" << result.output;
    const json answer = json::parse(result.output, nullptr, /*allow_exceptions=*/false);
    ASSERT_TRUE(answer.is_object()) << result.output;
    EXPECT_THAT(example,
                HasSubstr(absl::StrCat("\"router\": ", answer["assignment"]["router"].dump())));
    EXPECT_EQ(answer["assignment"]["reason"], "explicit");
  }
  EXPECT_GE(examples, 2);
}

TEST(GhzTest, TwoHundredCallsAtOnceAreAllAnswered) {
  ServerProcess server(TinyModel::Get().Config());
  TemporaryFolder folder;
  const std::string report_file = folder / "report.json";
  const json request = {{"text", "call {{.RequestNumber}}"},
                        {"router", TinyModel::Get().kinds().front()},
                        {"stopping", {{"max_new_tokens", 8}, {"ignore_eos", true}}}};
  const ProgramResult run = GoTool(
      "ghz", {"--insecure", "--call", absl::StrCat(kInference, ".Generate"), "-d", request.dump(),
              "-n", "200", "-c", "20", "-O", "json", "-o", report_file, server.grpc()});
  ASSERT_EQ(run.exit_code, 0) << run.output;
  const json report = json::parse(ReadFile(report_file));
  EXPECT_EQ(report["count"], 200);
  EXPECT_EQ(report["statusCodeDistribution"], json({{"OK", 200}}));
  EXPECT_TRUE(report.value("errorDistribution", json::object()).empty())
      << report["errorDistribution"];
  EXPECT_THAT(report["details"], SizeIs(200));
  for (const json& call : report["details"]) EXPECT_EQ(call["status"], "OK") << call;
  EXPECT_GT(report["rps"].get<double>(), 0);

  const auto page = client::HttpGet(server.ops(), "/metrics", absl::Seconds(10));
  ASSERT_TRUE(page.ok()) << page.status();
  const auto metrics = client::MetricsPage::Parse(*page);
  ASSERT_TRUE(metrics.ok()) << metrics.status();
  EXPECT_EQ(metrics->Sum("penstock_requests_total", {{"code", "OK"}}), 200);
  EXPECT_EQ(metrics->Sum("penstock_generated_tokens_total"), 200 * 8);
}

}  // namespace
}  // namespace penstock
