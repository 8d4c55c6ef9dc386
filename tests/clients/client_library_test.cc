#include <gmock/gmock.h>

#include <condition_variable>
#include <mutex>

#include "clients/cpp/client.h"
#include "clients/cpp/error.h"
#include "tests/support/fake_server.h"
#include "tests/support/rich_status.h"

namespace penstock::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ClientLibrary : public ::testing::Test {
 protected:
  std::unique_ptr<Client> Connect(const std::string& tenant = "") {
    Client::Options options;
    options.address = server_.address();
    options.tenant = tenant;
    auto client = Client::Connect(options);
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }

  static v1::GenerateRequest Prompt(const std::string& router) {
    v1::GenerateRequest request;
    request.set_text("Hello");
    request.set_router(router);
    return request;
  }

  FakeServer server_;
};

TEST_F(ClientLibrary, ConnectNamesAddressAndTimeWhenNothingAnswers) {
  Client::Options options;
  options.address = "127.0.0.1:1";
  options.connect_timeout = absl::Milliseconds(200);
  const auto client = Client::Connect(options);
  EXPECT_EQ(client.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(client.status().message()), HasSubstr("127.0.0.1:1 within 200ms"));
}

TEST_F(ClientLibrary, ConnectRefusesWhatIsNoAddressWithoutWaiting) {
  for (const char* address : {"", "127.0.0.1", "localhost:", ":50051", "host:0", "host:65536",
                              "http://127.0.0.1:50051", "a:1,b:2", "::1:50051"}) {
    Client::Options options;
    options.address = address;
    options.connect_timeout = absl::InfiniteDuration();
    const auto client = Client::Connect(options);
    EXPECT_EQ(client.status().code(), absl::StatusCode::kInvalidArgument) << address;
    EXPECT_THAT(std::string(client.status().message()),
                HasSubstr(absl::StrCat("got '", address, "', want HOST:PORT")));
  }
  for (const char* address : {"[::1]:1", "unix:/nonexistent/socket", "ipv4:127.0.0.1:1"}) {
    Client::Options options;
    options.address = address;
    options.connect_timeout = absl::Milliseconds(1);
    EXPECT_EQ(Client::Connect(options).status().code(), absl::StatusCode::kUnavailable) << address;
  }
}

TEST_F(ClientLibrary, ConnectRefusesATenantThatMetadataCannotCarry) {
  Client::Options options;
  options.address = server_.address();
  options.tenant = "a\nb";
  EXPECT_EQ(Client::Connect(options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(ClientLibrary, GenerateReturnsTheAnswerAndSendsTheTenant) {
  const auto client = Connect("acme");
  const auto response = client->Generate(Prompt("mlp"));
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->choices(0).text(), " mlp0 mlp1 mlp2 mlp3");
  EXPECT_EQ(response->assignment().reason(), "explicit");
  EXPECT_EQ(server_.inference.tenant(), "acme");
}

TEST_F(ClientLibrary, ErrorsCarryReasonFieldAndRetry) {
  server_.inference.FailRouter("mlp", RichStatus(grpc::StatusCode::RESOURCE_EXHAUSTED,
                                                 "the queue is full", "QUEUE_FULL", "router", 3));
  const absl::Status status = Connect()->Generate(Prompt("mlp")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(std::string(status.message()), "the queue is full");
  const ErrorDetail detail = GetErrorDetail(status);
  EXPECT_EQ(detail.reason, "QUEUE_FULL");
  EXPECT_EQ(detail.domain, "penstock");
  EXPECT_EQ(detail.field, "router");
  EXPECT_EQ(detail.description, "the queue is full");
  EXPECT_EQ(detail.retry_after, absl::Seconds(3));
  EXPECT_EQ(DescribeError(status),
            "the queue is full\n  reason: QUEUE_FULL (field router)\n  retry after 3s");
}

TEST_F(ClientLibrary, ErrorsWithoutDetailsKeepCodeAndMessage) {
  server_.inference.FailRouter("mlp", grpc::Status(grpc::StatusCode::INTERNAL, "broken"));
  const absl::Status status = Connect()->Generate(Prompt("mlp")).status();
  EXPECT_EQ(status, absl::InternalError("broken"));
  EXPECT_EQ(GetErrorDetail(status).reason, "");
  EXPECT_EQ(DescribeError(status), "broken\n  reason: INTERNAL");
}

TEST_F(ClientLibrary, DetailsThatDoNotParseAreLeftOut) {
  const absl::Status status =
      ToAbslStatus(grpc::Status(grpc::StatusCode::INTERNAL, "broken", "\xff\xff\xff"));
  EXPECT_EQ(status, absl::InternalError("broken"));
}

TEST_F(ClientLibrary, MergedStreamEqualsTheUnaryAnswer) {
  const auto client = Connect();
  v1::GenerateResponse merged;
  const auto call = client->StartGenerate(
      Prompt("mlp"),
      {.on_message = [&](const auto& message) { MergeMessage(message, merged); }, .on_done = {}});
  ASSERT_TRUE(call->Wait().ok());
  const auto unary = client->Generate(Prompt("mlp"));
  ASSERT_TRUE(unary.ok());
  EXPECT_EQ(merged.choices(0).SerializeAsString(), unary->choices(0).SerializeAsString());
  EXPECT_EQ(merged.usage().SerializeAsString(), unary->usage().SerializeAsString());
  EXPECT_EQ(merged.request_id(), "fake-1");
  EXPECT_EQ(merged.timing().first_token().nanos(), 1'000'000);
}

TEST_F(ClientLibrary, CancelEndsTheStreamOnBothSides) {
  server_.inference.HangRouter("mlp");
  const auto client = Connect();
  std::mutex mutex;
  std::condition_variable arrived;
  bool has_text = false;
  const auto call = client->StartGenerate(Prompt("mlp"), {.on_message =
                                                              [&](const auto& message) {
                                                                const std::lock_guard lock(mutex);
                                                                has_text |=
                                                                    message.deltas_size() > 0;
                                                                arrived.notify_all();
                                                              },
                                                          .on_done = {}});
  {
    std::unique_lock lock(mutex);
    arrived.wait(lock, [&] { return has_text; });
  }
  call->Cancel();
  EXPECT_EQ(call->Wait().code(), absl::StatusCode::kCancelled);
  while (server_.inference.cancelled_streams() == 0) std::this_thread::yield();
  EXPECT_EQ(server_.inference.cancelled_streams(), 1);
}

TEST_F(ClientLibrary, DeadlineEndsAHangingStream) {
  server_.inference.HangRouter("mlp");
  const auto client = Connect();
  const auto call = client->StartGenerate(Prompt("mlp"), {}, {.timeout = absl::Milliseconds(50)});
  EXPECT_EQ(call->Wait().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ClientLibrary, ADroppedCallRunsToItsEndWhichItsClientAwaits) {
  std::optional<absl::Status> result;
  {
    const auto client = Connect();
    client->StartGenerate(
        Prompt("mlp"),
        {.on_message = {}, .on_done = [&](const absl::Status& status) { result = status; }});
  }
  ASSERT_TRUE(result.has_value());
  EXPECT_TRUE(result->ok()) << *result;
}

// gRPC aborts, now and then, where a channel's last owner is one of its own threads.
TEST_F(ClientLibrary, ClientsComeAndGoWithTheirCalls) {
  for (int round = 0; round < 50; ++round) {
    std::vector<std::unique_ptr<Client>> clients;
    for (int i = 0; i < 3; ++i) {
      clients.push_back(Connect());
      clients.back()->StartGenerate(Prompt("mlp"), {});
    }
    clients.clear();
  }
  EXPECT_EQ(server_.inference.requests().size(), 150U);
}

TEST_F(ClientLibrary, RoutersAreListedLoadedReplacedAndUnloaded) {
  const auto client = Connect();
  v1::LoadRouterRequest request;
  request.set_name("mlp");
  request.set_path("mlp-v2");
  const absl::Status known = client->LoadRouter(request).status();
  EXPECT_EQ(known.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(GetErrorDetail(known).reason, "ROUTER_EXISTS");
  request.set_replace(true);
  const auto replaced = client->LoadRouter(request);
  ASSERT_TRUE(replaced.ok()) << replaced.status();
  EXPECT_EQ(replaced->router().path(), "mlp-v2");
  EXPECT_EQ(replaced->replaced_fingerprint(), std::string(64, 'm'));
  EXPECT_TRUE(client->UnloadRouter("mlp").ok());
  EXPECT_EQ(client->UnloadRouter("mlp").code(), absl::StatusCode::kNotFound);
  const auto routers = client->ListRouters();
  ASSERT_TRUE(routers.ok());
  EXPECT_EQ(routers->routers_size(), 1);
}

TEST_F(ClientLibrary, WatchingEndsWhenTheReaderHasEnough) {
  int messages = 0;
  const absl::Status status = Connect()->WatchExpertStats(
      {}, [&](const v1::GetExpertStatsResponse&) { return ++messages < 3; });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(messages, 3);
}

TEST_F(ClientLibrary, DrainReportsWhatRemains) {
  std::vector<int> remaining;
  const absl::Status status = Connect()->Drain({}, [&](const v1::DrainResponse& progress) {
    remaining.push_back(progress.remaining_requests());
    return true;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(remaining, ElementsAre(2, 1, 0));
}

TEST(MergeMessage, KeepsChoicesApartAndJoinsTraces) {
  v1::GenerateResponse merged;
  for (int part = 0; part < 2; ++part) {
    v1::GenerateStreamResponse message;
    for (int index = 1; index >= 0; --index) {
      v1::Choice& delta = *message.add_deltas();
      delta.set_index(index);
      delta.set_text(std::string(1, static_cast<char>('a' + index)));
      v1::RouterTrace& trace = *delta.mutable_trace();
      trace.set_first_position(5 + part);
      trace.set_num_positions(1);
      trace.add_layers(0);
      trace.set_k(1);
      trace.set_experts(std::string(1, static_cast<char>(200 + part)));
      trace.add_weights(1);
    }
    MergeMessage(message, merged);
  }
  ASSERT_EQ(merged.choices_size(), 2);
  EXPECT_EQ(merged.choices(0).index(), 1);
  EXPECT_EQ(merged.choices(0).text(), "bb");
  EXPECT_EQ(merged.choices(1).text(), "aa");
  EXPECT_EQ(merged.choices(1).trace().first_position(), 5);
  EXPECT_EQ(merged.choices(1).trace().num_positions(), 2);
  EXPECT_EQ(merged.choices(1).trace().experts(), "\xc8\xc9");
  EXPECT_EQ(merged.choices(1).trace().layers_size(), 1);
}

}  // namespace
}  // namespace penstock::client
