// What only the wire can get wrong, field by field. Bounds of policy, model and tenant:
// tests/server/engine.
#include <mutex>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/base/log.h"
#include "tests/server/rpc/error_details.h"
#include "tests/server/rpc/generic_call.h"
#include "tests/server/rpc/harness.h"

namespace penstock {
namespace {

struct BadInput {
  std::string name;
  std::string method;
  std::string bytes;
  std::vector<std::pair<std::string, std::string>> metadata;
  grpc::StatusCode code = grpc::StatusCode::INVALID_ARGUMENT;
  std::string reason = "INVALID_FIELD";
  std::string field;
  std::string message;  // whole
};

// Names the case in a failure.
void PrintTo(const BadInput& input, std::ostream* out) { *out << input.name; }

template <typename Message>
std::string BytesOf(void (*fill)(Message*)) {
  Message message;
  fill(&message);
  return message.SerializeAsString();
}

const char kInference[] = "/penstock.v1.InferenceService/";
const char kAdmin[] = "/penstock.v1.AdminService/";

// Field 3 of GenerateRequest and ScoreRequest, 2 of TokenizeRequest: a text of one byte that UTF-8
// never has.
const char kBadText3[] = "\x1a\x01\xff";
const char kBadText2[] = "\x12\x01\xff";

std::vector<BadInput> OfRequests() {
  std::vector<BadInput> inputs;
  const std::string text = "\x1a\x01x";
  const struct {
    const char *method, *message;
  } methods[] = {{"Generate", "penstock.v1.GenerateRequest"},
                 {"GenerateStream", "penstock.v1.GenerateRequest"},
                 {"Score", "penstock.v1.ScoreRequest"}};
  for (const auto& [method, message] : methods) {
    const std::string path = std::string(kInference) + method;
    inputs.push_back({.name = std::string(method) + "BytesThatAreNoMessage",
                      .method = path,
                      .bytes = "\x1a\xff",
                      .metadata = {},
                      .reason = "MALFORMED_MESSAGE",
                      .field = "",
                      .message = std::string("the request: got 2 bytes that don't parse, want a ") +
                                 message + " in protobuf's binary format"});
    inputs.push_back({.name = std::string(method) + "TextThatIsNotUtf8",
                      .method = path,
                      .bytes = kBadText3,
                      .metadata = {},
                      .field = "text",
                      .message = "text: got an invalid byte at offset 0, want valid UTF-8"});
    inputs.push_back({.name = std::string(method) + "EmptyTenant",
                      .method = path,
                      .bytes = text,
                      .metadata = {{"x-penstock-tenant", ""}},
                      .field = "x-penstock-tenant",
                      .message =
                          "x-penstock-tenant: got an empty value, want a tenant's name, or no "
                          "such metadata"});
    inputs.push_back({.name = std::string(method) + "TwoTenants",
                      .method = path,
                      .bytes = text,
                      .metadata = {{"x-penstock-tenant", "acme"}, {"x-penstock-tenant", "default"}},
                      .field = "x-penstock-tenant",
                      .message = "x-penstock-tenant: got 2 values, want one"});
  }
  for (const char* method : {"Generate", "GenerateStream"}) {
    inputs.push_back({.name = std::string(method) + "DurationThatIsNone",
                      .method = std::string(kInference) + method,
                      .bytes = BytesOf<v1::GenerateRequest>([](auto* m) {
                        m->set_text("x");
                        m->mutable_ttft_slo()->set_nanos(-2'000'000'000);
                      }),
                      .metadata = {},
                      .field = "ttft_slo",
                      .message =
                          "ttft_slo: got seconds 0 and nanos -2000000000, want seconds within "
                          "±315576000000, nanos within ±999999999, of one sign"});
  }
  return inputs;
}

std::vector<BadInput> OfText() {
  const std::string tokenize = std::string(kInference) + "Tokenize";
  const std::string detokenize = std::string(kInference) + "Detokenize";
  return {
      {.name = "TokenizeNothing",
       .method = tokenize,
       .bytes = "",
       .metadata = {},
       .field = "input",
       .message = "input: got nothing, want text or chat"},
      {.name = "TokenizeTextThatIsNotUtf8",
       .method = tokenize,
       .bytes = kBadText2,
       .metadata = {},
       .field = "text",
       .message = "text: got an invalid byte at offset 0, want valid UTF-8"},
      {.name = "TokenizeTextOverTheLimit",
       .method = tokenize,
       .bytes = BytesOf<v1::TokenizeRequest>([](auto* m) { m->set_text(std::string(1001, 'x')); }),
       .metadata = {},
       .field = "text",
       .message = "text: got 1001 bytes, want at most 1000"},
      {.name = "TokenizeChatWithoutMessages",
       .method = tokenize,
       .bytes = BytesOf<v1::TokenizeRequest>([](auto* m) { m->mutable_chat(); }),
       .metadata = {},
       .field = "chat.messages",
       .message = "chat.messages: got no message, want at least 1"},
      {.name = "TokenizeForAnotherModel",
       .method = tokenize,
       .bytes = BytesOf<v1::TokenizeRequest>([](auto* m) {
         m->set_model("gpt");
         m->set_text("x");
       }),
       .metadata = {},
       .code = grpc::StatusCode::NOT_FOUND,
       .reason = "UNKNOWN_MODEL",
       .field = "model",
       .message = "model: got gpt, want tiny or nothing"},
      {.name = "TokenizeForAnUnknownTenant",
       .method = tokenize,
       .bytes = BytesOf<v1::TokenizeRequest>([](auto* m) { m->set_text("x"); }),
       .metadata = {{"x-penstock-tenant", "nobody"}},
       .field = "x-penstock-tenant",
       .message = "x-penstock-tenant: got \"nobody\", want a configured tenant"},
      {.name = "DetokenizeNegativeId",
       .method = detokenize,
       .bytes = BytesOf<v1::DetokenizeRequest>([](auto* m) {
         m->add_ids(1);
         m->add_ids(-1);
       }),
       .metadata = {},
       .field = "ids[1]",
       .message = "ids[1]: got -1, want a token id in [0, 258]"},
      {.name = "DetokenizeIdBeyondTheVocabulary",
       .method = detokenize,
       .bytes = BytesOf<v1::DetokenizeRequest>([](auto* m) { m->add_ids(259); }),
       .metadata = {},
       .field = "ids[0]",
       .message = "ids[0]: got 259, want a token id in [0, 258]"},
      {.name = "DetokenizeForAnotherModel",
       .method = detokenize,
       .bytes = BytesOf<v1::DetokenizeRequest>([](auto* m) { m->set_model("gpt"); }),
       .metadata = {},
       .code = grpc::StatusCode::NOT_FOUND,
       .reason = "UNKNOWN_MODEL",
       .field = "model",
       .message = "model: got gpt, want tiny or nothing"},
  };
}

std::vector<BadInput> OfAdmin() {
  const auto method = [](const char* name) { return std::string(kAdmin) + name; };
  return {
      {.name = "LoadRouterWithoutName",
       .method = method("LoadRouter"),
       .bytes = BytesOf<v1::LoadRouterRequest>([](auto* m) { m->set_path("p"); }),
       .metadata = {},
       .field = "name",
       .message = "name: got \"\", want 1 to 63 of a-z, 0-9, '.', '_' and '-', the first a letter "
                  "or digit; not \"none\""},
      {.name = "LoadRouterWithoutPath",
       .method = method("LoadRouter"),
       .bytes = BytesOf<v1::LoadRouterRequest>([](auto* m) { m->set_name("mlp"); }),
       .metadata = {},
       .field = "path",
       .message = "path: got nothing, want a package's folder, relative to routers.root"},
      {.name = "UnloadRouterThatIsNotLoaded",
       .method = method("UnloadRouter"),
       .bytes = BytesOf<v1::UnloadRouterRequest>([](auto* m) { m->set_name("mlp"); }),
       .metadata = {},
       .code = grpc::StatusCode::NOT_FOUND,
       .reason = "UNKNOWN_ROUTER",
       .field = "name",
       .message = "name: got mlp, want one of linear"},
      {.name = "ExpertStatsOfAnUnknownRouter",
       .method = method("GetExpertStats"),
       .bytes = BytesOf<v1::GetExpertStatsRequest>([](auto* m) { m->set_router("mlp"); }),
       .metadata = {},
       .code = grpc::StatusCode::NOT_FOUND,
       .reason = "UNKNOWN_ROUTER",
       .field = "router",
       .message = "router: got mlp, want one of linear"},
      {.name = "WatchAnUnknownRouter",
       .method = method("WatchExpertStats"),
       .bytes = BytesOf<v1::WatchExpertStatsRequest>([](auto* m) { m->set_router("mlp"); }),
       .metadata = {},
       .code = grpc::StatusCode::NOT_FOUND,
       .reason = "UNKNOWN_ROUTER",
       .field = "router",
       .message = "router: got mlp, want one of linear"},
      {.name = "WatchTooOften",
       .method = method("WatchExpertStats"),
       .bytes = BytesOf<v1::WatchExpertStatsRequest>(
           [](auto* m) { m->mutable_interval()->set_nanos(99'000'000); }),
       .metadata = {},
       .field = "interval",
       .message = "interval: got 99ms, want a duration from 100ms to 1h"},
      {.name = "WatchTooRarely",
       .method = method("WatchExpertStats"),
       .bytes = BytesOf<v1::WatchExpertStatsRequest>(
           [](auto* m) { m->mutable_interval()->set_seconds(3601); }),
       .metadata = {},
       .field = "interval",
       .message = "interval: got 1h1s, want a duration from 100ms to 1h"},
      {.name = "AssignForAnUnknownTenant",
       .method = method("Assign"),
       .bytes = BytesOf<v1::AssignRequest>([](auto* m) { m->set_tenant("nobody"); }),
       .metadata = {},
       .field = "tenant",
       .message = "tenant: got \"nobody\", want a configured tenant"},
      {.name = "AssignBeforeTime",
       .method = method("Assign"),
       .bytes = BytesOf<v1::AssignRequest>(
           [](auto* m) { m->mutable_time()->set_seconds(-62'135'596'801); }),
       .metadata = {},
       .field = "time.seconds",
       .message = "time.seconds: got -62135596801, want seconds since 1970 within the years 1 to "
                  "9999"},
      {.name = "HaltAnUnknownArm",
       .method = method("HaltArm"),
       .bytes = BytesOf<v1::HaltArmRequest>([](auto* m) { m->set_arm("c"); }),
       .metadata = {},
       .code = grpc::StatusCode::NOT_FOUND,
       .reason = "UNKNOWN_ARM",
       .field = "arm",
       .message = "arm: got c, want one of b"},
      {.name = "HaltForALongReason",
       .method = method("HaltArm"),
       .bytes = BytesOf<v1::HaltArmRequest>([](auto* m) { m->set_reason(std::string(257, 'x')); }),
       .metadata = {},
       .field = "reason",
       .message = "reason: got 257 bytes, want at most 256"},
      {.name = "DrainInNegativeTime",
       .method = method("Drain"),
       .bytes = BytesOf<v1::DrainRequest>([](auto* m) { m->mutable_timeout()->set_seconds(-1); }),
       .metadata = {},
       .field = "timeout",
       .message = "timeout: got -1s, want a duration from 0 to 24h"},
  };
}

class BadInputTest : public RpcTest, public ::testing::WithParamInterface<BadInput> {};

TEST_P(BadInputTest, IsRefusedByName) {
  frontend_.mutable_policy().limits.max_prompt_bytes = 1000;
  Serve();
  const BadInput& input = GetParam();
  const grpc::Status status = CallWithBytes(channel_, input.method, input.bytes, input.metadata);
  EXPECT_EQ(status.error_code(), input.code);
  EXPECT_EQ(status.error_message(), input.message);
  const ErrorDetails details = DetailsOf(status);
  EXPECT_EQ(details.reason, input.reason);
  EXPECT_EQ(details.domain, "penstock");
  EXPECT_EQ(details.field, input.field);
  EXPECT_EQ(details.description, input.field.empty() ? "" : input.message);
  EXPECT_FALSE(frontend_.draining());
  EXPECT_EQ(shut_downs(), 0u);
}

std::string NameOf(const ::testing::TestParamInfo<BadInput>& info) { return info.param.name; }

INSTANTIATE_TEST_SUITE_P(Requests, BadInputTest, ::testing::ValuesIn(OfRequests()), NameOf);
INSTANTIATE_TEST_SUITE_P(Text, BadInputTest, ::testing::ValuesIn(OfText()), NameOf);
INSTANTIATE_TEST_SUITE_P(Admin, BadInputTest, ::testing::ValuesIn(OfAdmin()), NameOf);

TEST_F(RpcTest, RequestsThatNeverReachTheFrontendAreCountedAndLogged) {
  Serve();
  std::mutex mutex;
  std::vector<std::string> refused;
  SetLogSink([&](std::string_view line) {
    std::lock_guard<std::mutex> lock(mutex);
    if (line.find("request refused") != std::string_view::npos) refused.emplace_back(line);
  });
  CallWithBytes(channel_, "/penstock.v1.InferenceService/Generate", "\x1a\xff",
                {{"x-penstock-tenant", "acme"}});
  CallWithBytes(channel_, "/penstock.v1.InferenceService/GenerateStream", "\x1a\xff");
  server_->Shutdown(absl::InfiniteDuration());
  SetLogSink(nullptr);
  ASSERT_EQ(refused.size(), 2u);
  EXPECT_NE(refused[0].find("tenant=acme code=INVALID_ARGUMENT"), std::string::npos) << refused[0];
  const std::vector<RequestEvent> requests = telemetry_.requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[0].tenant, "acme");
  EXPECT_EQ(requests[1].tenant, "default");
  for (const RequestEvent& request : requests) {
    EXPECT_EQ(request.api, Api::kGrpc);
    EXPECT_EQ(request.code, "INVALID_ARGUMENT");
    EXPECT_EQ(request.router, "");
    EXPECT_FALSE(request.started);
  }
}

TEST_F(RpcTest, RequestsOverTheMessageLimitAreRefused) {
  RpcServer::Options options;
  options.max_request_bytes = 1000;
  Serve(options);
  const grpc::Status status =
      CallWithBytes(channel_, "/penstock.v1.InferenceService/Generate", std::string(1001, 'x'));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_NE(status.error_message().find("1001 vs. 1000"), std::string::npos)
      << status.error_message();
}

TEST_F(RpcTest, UnknownMethodsAreUnimplemented) {
  Serve();
  EXPECT_EQ(CallWithBytes(channel_, "/penstock.v1.InferenceService/Dream", "").error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
}

}  // namespace
}  // namespace penstock
