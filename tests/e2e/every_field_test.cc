// Every field of every request, with a value that it cannot take. The descriptors are walked: a
// field without a row fails.
#include <google/protobuf/text_format.h>
#include <signal.h>

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/dynamic_message.h"
#include "gtest/gtest.h"
#include "penstock/v1/admin.pb.h"
#include "penstock/v1/inference.pb.h"
#include "penstock/v1/report.pb.h"
#include "tests/e2e/server_process.h"
#include "tests/server/rpc/error_details.h"
#include "tests/server/rpc/generic_call.h"

namespace penstock {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::Message;
using ::google::protobuf::MethodDescriptor;
using ::testing::StartsWith;

// One request that is refused for one field. Where the field takes any value of its type, `message`
// is empty and the request is answered.
struct Row {
  std::string path;     // of the field, in its request
  std::string request;  // in protobuf's text format
  std::string message;  // what the status begins with; $MODEL stands for the served model's name
  grpc::StatusCode code = grpc::StatusCode::INVALID_ARGUMENT;
};

std::string Text(int bytes) { return std::string(static_cast<std::size_t>(bytes), 'x'); }

// What Generate and Score have in common.
std::vector<Row> OfAnyPrompt() {
  return {
      {"request_id", R"(request_id: "a\nb" text: "xy")",
       "request_id: got byte 0xa at offset 1, want printable ASCII"},
      {"model", R"(model: "gpt" text: "xy")", "model: got gpt, want $MODEL or nothing",
       grpc::StatusCode::NOT_FOUND},
      {"text", absl::StrCat("text: '", Text(201), "'"), "prompt: got 201 tokens, want at most 200"},
      {"token_ids.ids", "token_ids {ids: [1, 272]}",
       "token_ids.ids[1]: got 272, want a token id in [0, 271]"},
      {"chat.messages.role", R"(chat {messages {role: "tool" content: "x"}})",
       R"(chat.messages[0].role: got "tool", want "system", "user" or "assistant")"},
      {"chat.messages.content", R"(chat {messages {role: "user" content: "a<|im_end|>"}})",
       "chat.messages[0].content: got the special token <|im_end|>"},
      {"router", R"(text: "xy" router: "nowhere")", "router: got nowhere, want one of ",
       grpc::StatusCode::NOT_FOUND},
      {"unit.session_id", absl::StrCat("text: 'xy' unit {session_id: '", Text(257), "'}"),
       "unit.session_id: got 257 bytes, want at most 256"},
      {"unit.user", absl::StrCat("text: 'xy' unit {user: '", Text(257), "'}"),
       "unit.user: got 257 bytes, want at most 256"},
      {"priority", "text: 'xy' priority: 10", "priority: got 10, want an integer in [0, 9]"}};
}

std::vector<Row> OfGenerate() {
  std::vector<Row> rows = OfAnyPrompt();
  const auto add = [&](const std::string& path, const std::string& value,
                       const std::string& message) {
    const std::size_t dot = path.find('.');
    const std::string section = path.substr(0, dot);
    const std::string field = absl::StrCat(path.substr(dot + 1), ": ", value);
    const std::string two = path == "stopping.max_new_tokens" ? "" : " max_new_tokens: 2";
    rows.push_back({path,
                    section == "stopping" ? absl::StrCat("text: 'xy' stopping {", field, two, "}")
                                          : absl::StrCat("text: 'xy' ", section, " {", field,
                                                         "} stopping {", two, "}"),
                    message});
  };
  add("sampling.temperature", "2.5", "sampling.temperature: got 2.5, want a number in [0, 2]");
  add("sampling.top_p", "nan", "sampling.top_p: got nan, want a number in [0, 1]");
  add("sampling.top_k", "-1", "sampling.top_k: got -1, want an integer in [0, 272]");
  add("sampling.min_p", "-0.5", "sampling.min_p: got -0.5, want a number in [0, 1]");
  add("sampling.seed", "18446744073709551615", "");
  add("sampling.repetition_penalty", "0",
      "sampling.repetition_penalty: got 0, want a number in (0, 10]");
  add("sampling.presence_penalty", "inf",
      "sampling.presence_penalty: got inf, want a number in [-2, 2]");
  add("sampling.frequency_penalty", "-3",
      "sampling.frequency_penalty: got -3, want a number in [-2, 2]");
  add("sampling.logit_bias", "{key: 272 value: 1}",
      "sampling.logit_bias: got 272, want a token id in [0, 271]");
  add("sampling.n", "17", "sampling.n: got 17, want an integer in [1, 16]");
  add("stopping.max_new_tokens", "0",
      "stopping.max_new_tokens: got 0, want an integer in [1, 200]");
  add("stopping.min_new_tokens", "3", "stopping.min_new_tokens: got 3, want an integer in [0, 2]");
  add("stopping.stop", "''", "stopping.stop[0]: got an empty string, want at least 1 byte");
  add("stopping.stop_token_ids", "-1",
      "stopping.stop_token_ids[0]: got -1, want a token id in [0, 271]");
  add("stopping.ignore_eos", "true", "");
  add("response.logprobs", "21", "response.logprobs: got 21, want an integer in [0, 20]");
  add("response.prompt_logprobs", "-1",
      "response.prompt_logprobs: got -1, want an integer in [0, 20]");
  add("response.token_ids", "true", "");
  add("response.router_trace", "true", "");
  add("response.prompt_router_trace", "true", "");
  add("cache.bypass", "true", "");
  add("cache.salt", absl::StrCat("'", Text(129), "'"),
      "cache.salt: got 129 bytes, want at most 128");
  rows.push_back({"ttft_slo", "text: 'xy' ttft_slo {seconds: -1}",
                  "ttft_slo: got -1s, want a duration over 0"});
  rows.push_back({"tpot_slo", "text: 'xy' tpot_slo {nanos: 1000000000}",
                  "tpot_slo: got seconds 0 and nanos 1000000000"});
  return rows;
}

std::vector<Row> OfScore() {
  std::vector<Row> rows = OfAnyPrompt();
  rows.push_back({"text", "text: 'x'", "input: got 1 token, want at least 2"});
  rows.push_back({"top_logprobs", "text: 'xy' top_logprobs: 21",
                  "top_logprobs: got 21, want an integer in [0, 20]"});
  rows.push_back({"skip_tokens", "text: 'xy' skip_tokens: 2",
                  "skip_tokens: got 2, want an integer in [0, 1]"});
  rows.push_back({"router_trace", "text: 'xy' router_trace: true", ""});
  return rows;
}

std::vector<Row> OfReport() {
  return {{"experiment", "experiment: 'nowhere'", "experiment: got nowhere, running now: known",
           grpc::StatusCode::NOT_FOUND},
          {"revision", "experiment: 'known' revision: 'x'",
           "revision: got x, measured: ", grpc::StatusCode::NOT_FOUND}};
}

// One that takes no request.
std::string AnExperiment() {
  return "experiments: {traffic_salt: t, list: [{name: known, audience: {tenants: [default]}, "
         "unit: user, exposure: 0, arms: [{name: a, router: linear, share: 5000}, {name: b, "
         "router: linear, share: 5000}], control: a, primary: {metric: latency, better: lower, "
         "min_effect: 1}, outcomes: [click]}]}\n";
}

std::map<std::string, std::vector<Row>> AllRows() {
  const auto not_found = grpc::StatusCode::NOT_FOUND;
  const Row unknown_router = {"router", "router: 'nowhere'", "router: got nowhere, want one of ",
                              not_found};
  const std::string kind = TinyModel::Get().kinds().front();
  return {
      {"penstock.v1.GenerateRequest", OfGenerate()},
      {"penstock.v1.ScoreRequest", OfScore()},
      {"penstock.v1.TokenizeRequest",
       {{"model", "model: 'gpt' text: 'x'", "model: got gpt, want $MODEL or nothing", not_found},
        {"text", "", "input: got nothing, want text or chat"},
        {"chat.messages.role", "chat {messages {content: 'x'}}",
         "chat.messages[0].role: got \"\", want \"system\""},
        {"chat.messages.content", "chat {messages {role: 'user' content: '<|im_start|>'}}",
         "chat.messages[0].content: got the special token <|im_start|>"},
        {"parse_special", "text: 'x' parse_special: true", ""}}},
      {"penstock.v1.DetokenizeRequest",
       {{"model", "model: 'gpt'", "model: got gpt, want $MODEL or nothing", not_found},
        {"ids", "ids: [1, -1]", "ids[1]: got -1, want a token id in [0, "},
        {"keep_special", "ids: 65 keep_special: true", ""}}},
      {"penstock.v1.GetModelInfoRequest", {}},
      {"penstock.v1.ListRoutersRequest", {}},
      {"penstock.v1.LoadRouterRequest",
       {{"name", "name: 'Bad Name' path: 'p'", "name: got \"Bad Name\", want 1 to 63 of a-z"},
        {"path", "name: 'new' path: '../model'",
         "path: got ../model, want a folder inside routers.root"},
        {"replace", absl::StrCat("name: 'new' path: '", kind, "' replace: true"), ""}}},
      {"penstock.v1.UnloadRouterRequest",
       {{"name", "name: 'nowhere'", "name: got nowhere, want one of ", not_found}}},
      {"penstock.v1.GetExpertStatsRequest", {unknown_router}},
      {"penstock.v1.WatchExpertStatsRequest",
       {unknown_router,
        {"interval", "interval {nanos: 1}",
         "interval: got 1ns, want a duration from 100ms to 1h"}}},
      {"penstock.v1.GetLoadRequest", {}},
      {"penstock.v1.AssignRequest",
       {{"tenant", "tenant: 'nobody'", "tenant: got \"nobody\", want a configured tenant"},
        {"session_id", "session_id: 's'", ""},
        {"user", "user: 'u'", ""},
        {"request_id", "request_id: 'r'", ""},
        {"router", "router: 'nowhere'", ""},
        {"time.seconds", "time {seconds: 253402300800}", "time.seconds: got 253402300800, want"},
        {"time.nanos", "time {nanos: -1}", "time.nanos: got -1, want an integer in [0, "}}},
      {"penstock.v1.ListExperimentsRequest", {}},
      {"penstock.v1.HaltArmRequest",
       {{"experiment", "experiment: 'e' arm: 'a'", "experiment: got e, want ", not_found},
        {"arm", "arm: 'a'", "experiment: got nothing, want ", not_found},
        {"reason", absl::StrCat("experiment: 'e' reason: '", Text(257), "'"),
         "reason: got 257 bytes, want at most 256"}}},
      {"penstock.v1.ResumeArmRequest",
       {{"experiment", "experiment: 'e' arm: 'a'", "experiment: got e, want ", not_found},
        {"arm", "arm: 'a'", "experiment: got nothing, want ", not_found}}},
      {"penstock.v1.GetExperimentReportRequest", OfReport()},
      {"penstock.v1.GetExperimentSnapshotRequest", OfReport()},
      {"penstock.v1.ReportOutcomeRequest",
       {{"request_id", R"(request_id: "a\nb" name: "click")",
         "request_id: got byte 0xa at offset 1, want printable ASCII"},
        {"unit.session_id", absl::StrCat("name: 'click' unit {session_id: '", Text(257), "'}"),
         "unit.session_id: got 257 bytes, want at most 256"},
        {"unit.user", absl::StrCat("name: 'click' unit {user: '", Text(257), "'}"),
         "unit.user: got 257 bytes, want at most 256"},
        {"name", "request_id: 'r' name: 'clik'",
         "name: got 'clik', want an outcome of an experiment: click"},
        {"value", "request_id: 'r' name: 'click' value: nan",
         "value: got nan, want a finite number"},
        {"idempotency_key",
         absl::StrCat("request_id: 'r' name: 'click' idempotency_key: '", Text(129), "'"),
         "idempotency_key: got 129 bytes, want at most 128"}}},
      {"penstock.v1.DrainRequest",
       {{"timeout", "timeout {seconds: -1}", "timeout: got -1s, want a duration from 0"}}}};
}

bool IsLeaf(const FieldDescriptor& field) {
  return field.type() != FieldDescriptor::TYPE_MESSAGE || field.is_map() ||
         field.message_type()->full_name() == "google.protobuf.Duration";
}

// Calls `visit` with the fields from the request down to each leaf.
template <typename Visit>
void VisitLeaves(const Descriptor& type, std::vector<const FieldDescriptor*>& path,
                 const Visit& visit) {
  for (int i = 0; i < type.field_count(); ++i) {
    path.push_back(type.field(i));
    if (IsLeaf(*path.back())) {
      visit(path);
    } else {
      VisitLeaves(*path.back()->message_type(), path, visit);
    }
    path.pop_back();
  }
}

// "chat.messages[0].content"; without indices for `bare`.
std::string NameOf(const std::vector<const FieldDescriptor*>& path, bool bare) {
  std::string name;
  for (const FieldDescriptor* field : path) {
    absl::StrAppend(&name, name.empty() ? "" : ".", field->name(),
                    !bare && field->is_repeated() ? "[0]" : "");
  }
  return name;
}

// The request with `bytes` in the string at the end of `path`.
void SetString(Message* message, const std::vector<const FieldDescriptor*>& path,
               const std::string& bytes) {
  for (std::size_t i = 0; i + 1 < path.size(); ++i) {
    const auto& reflection = *message->GetReflection();
    message = path[i]->is_repeated() ? reflection.AddMessage(message, path[i])
                                     : reflection.MutableMessage(message, path[i]);
  }
  if (path.back()->is_repeated()) {
    message->GetReflection()->AddString(message, path.back(), bytes);
  } else {
    message->GetReflection()->SetString(message, path.back(), bytes);
  }
}

class EveryFieldTest : public ::testing::Test {
 protected:
  EveryFieldTest() {
    for (const auto* file :
         {v1::GenerateRequest::descriptor()->file(), v1::DrainRequest::descriptor()->file()}) {
      for (int i = 0; i < file->service_count(); ++i) {
        for (int j = 0; j < file->service(i)->method_count(); ++j)
          methods_.push_back(file->service(i)->method(j));
      }
    }
    EXPECT_GE(methods_.size(), 13u);
  }

  // Afterwards the server is as it was: idle, and it ends when asked.
  void TearDown() override {
    const auto load = server_.Connect()->GetLoad();
    ASSERT_TRUE(load.ok()) << load.status();
    EXPECT_EQ(load->running() + load->waiting(), 0);
    EXPECT_EQ(load->kv_blocks_active(), 0);
    EXPECT_FALSE(load->draining());
    server_.Signal(SIGTERM);
    EXPECT_EQ(server_.Wait(), 0);
  }

  std::unique_ptr<Message> NewRequest(const MethodDescriptor& method) {
    return std::unique_ptr<Message>(factory_.GetPrototype(method.input_type())->New());
  }

  grpc::Status Call(const MethodDescriptor& method, const Message& request) {
    return CallWithBytes(channel_,
                         absl::StrCat("/", method.service()->full_name(), "/", method.name()),
                         request.SerializePartialAsString());
  }

  ServerProcess server_{TinyModel::Get().Config(AnExperiment())};
  std::shared_ptr<grpc::Channel> channel_ =
      grpc::CreateChannel(server_.grpc(), grpc::InsecureChannelCredentials());
  google::protobuf::DynamicMessageFactory factory_;
  std::vector<const MethodDescriptor*> methods_;
};

TEST_F(EveryFieldTest, HasARowThatTheServerRefusesByName) {
  const std::string model = server_.Connect()->GetModelInfo()->name();
  const std::map<std::string, std::vector<Row>> all = AllRows();
  for (const MethodDescriptor* method : methods_) {
    SCOPED_TRACE(method->full_name());
    const auto rows = all.find(method->input_type()->full_name());
    ASSERT_NE(rows, all.end()) << method->input_type()->full_name() << " has no rows";
    std::set<std::string> fields, covered;
    std::vector<const FieldDescriptor*> path;
    VisitLeaves(*method->input_type(), path,
                [&](const auto& leaf) { fields.insert(NameOf(leaf, /*bare=*/true)); });
    for (const Row& row : rows->second) {
      SCOPED_TRACE(row.path);
      covered.insert(row.path);
      const std::unique_ptr<Message> request = NewRequest(*method);
      ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(row.request, request.get()))
          << row.request;
      // A stream's good answer is more than CallWithBytes takes; the unary method of the same
      // request shows it.
      if (row.message.empty() && method->server_streaming()) continue;
      const grpc::Status status = Call(*method, *request);
      if (row.message.empty()) {
        EXPECT_TRUE(status.ok()) << status.error_message();
        continue;
      }
      EXPECT_EQ(status.error_code(), row.code);
      EXPECT_THAT(status.error_message(),
                  StartsWith(absl::StrReplaceAll(row.message, {{"$MODEL", model}})));
      EXPECT_EQ(DetailsOf(status).field, row.message.substr(0, row.message.find(':')));
    }
    EXPECT_EQ(covered, fields);
  }
}

TEST_F(EveryFieldTest, OfTextMustBeUtf8) {
  int strings = 0;
  for (const MethodDescriptor* method : methods_) {
    SCOPED_TRACE(method->full_name());
    std::vector<const FieldDescriptor*> path;
    VisitLeaves(*method->input_type(), path, [&](const auto& leaf) {
      if (leaf.back()->type() != FieldDescriptor::TYPE_STRING) return;
      ++strings;
      const std::unique_ptr<Message> request = NewRequest(*method);
      SetString(request.get(), leaf, "ok\xff");
      const grpc::Status status = Call(*method, *request);
      EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
      EXPECT_EQ(status.error_message(),
                absl::StrCat(NameOf(leaf, /*bare=*/false),
                             ": got an invalid byte at offset 2, want valid UTF-8"));
    });
  }
  EXPECT_GT(strings, 30);
}

TEST_F(EveryFieldTest, CutShortIsNoMessage) {
  for (const MethodDescriptor* method : methods_) {
    SCOPED_TRACE(method->full_name());
    const std::string name = absl::StrCat("/", method->service()->full_name(), "/", method->name());
    for (int field = 1; field <= 15; ++field) {
      // A length of 100 bytes, of which two follow.
      const std::string cut = {static_cast<char>(field << 3 | 2), 100, 1, 2};
      const grpc::Status status = CallWithBytes(channel_, name, cut);
      EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << field;
      EXPECT_EQ(DetailsOf(status).reason, "MALFORMED_MESSAGE") << field;
      // A group that never ends; no field is one.
      EXPECT_EQ(CallWithBytes(channel_, name, std::string(1, static_cast<char>(field << 3 | 3)))
                    .error_code(),
                grpc::StatusCode::INVALID_ARGUMENT)
          << field;
    }
  }
}

}  // namespace
}  // namespace penstock
