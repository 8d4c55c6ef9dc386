#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/server/rpc/error_details.h"
#include "tests/server/rpc/harness.h"
#include "tests/server/rpc/stream_client.h"

namespace penstock {
namespace {

absl::Status SlowReader() {
  return MakeError(absl::StatusCode::kResourceExhausted, "too slow",
                   {.reason = "SLOW_READER", .field = {}, .retry_after = {}});
}

class GenerateStreamTest : public RpcTest {
 protected:
  // A request that admits, sends `text` letter by letter, and stops.
  void AnswerWith(const std::string& text) {
    frontend_.SetScript([this, text](const FakeFrontend::Started& started) {
      started.observer->OnAdmitted(TinyAdmission());
      for (const char letter : text) {
        EXPECT_TRUE(started.observer->OnDelta(TextDelta(std::string(1, letter))));
      }
      EXPECT_TRUE(started.observer->OnDelta(TextDelta("", 0, FinishReason::kStop)));
      frontend_.End(started.number, absl::OkStatus(), TinySummary());
    });
  }
};

TEST_F(GenerateStreamTest, SendsAssignmentThenTextThenUsage) {
  Serve();
  AnswerWith("hello world");
  StreamClient client(inference_.get(), TextRequest());
  ASSERT_TRUE(client.Wait().ok());
  const std::vector<v1::GenerateStreamResponse> messages = client.messages();
  ASSERT_GE(messages.size(), 2u);
  EXPECT_EQ(messages.front().request_id(), "r1");
  EXPECT_EQ(messages.front().model(), "tiny");
  EXPECT_EQ(messages.front().assignment().router(), "linear");
  EXPECT_EQ(messages.front().assignment().reason(), "default");
  EXPECT_EQ(client.Text(), "hello world");
  for (std::size_t i = 1; i < messages.size(); ++i) EXPECT_FALSE(messages[i].has_assignment());
  for (std::size_t i = 0; i + 1 < messages.size(); ++i) EXPECT_FALSE(messages[i].has_usage());
  const v1::GenerateStreamResponse& last = messages.back();
  ASSERT_EQ(last.deltas_size(), 1);
  EXPECT_EQ(last.deltas(0).finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(last.usage().completion_tokens(), 3);
  EXPECT_TRUE(last.has_timing());
}

TEST_F(GenerateStreamTest, SendsTheAssignmentAtAdmission) {
  Serve();
  StreamClient client(inference_.get(), TextRequest());
  const FakeFrontend::Started started = frontend_.WaitForStart();
  frontend_.Do([&] { started.observer->OnAdmitted(TinyAdmission()); });
  client.WaitForMessages(1);
  EXPECT_EQ(client.messages().front().assignment().router(), "linear");
  frontend_.Do([&] { frontend_.End(started.number, absl::InternalError("over")); });
  EXPECT_EQ(client.Wait().error_code(), grpc::StatusCode::INTERNAL);
}

TEST_F(GenerateStreamTest, SendsIdsAndScoresOnlyWhenAsked) {
  Serve();
  AnswerWith("ab");
  StreamClient plain(inference_.get(), TextRequest());
  ASSERT_TRUE(plain.Wait().ok());
  v1::GenerateRequest request = TextRequest();
  request.mutable_response()->set_token_ids(true);
  request.mutable_response()->set_logprobs(0);
  StreamClient full(inference_.get(), request);
  ASSERT_TRUE(full.Wait().ok());
  int plain_ids = 0, full_ids = 0, plain_scores = 0, full_scores = 0;
  for (const auto& message : plain.messages()) {
    for (const v1::Choice& choice : message.deltas()) {
      plain_ids += choice.token_ids_size();
      plain_scores += choice.scores_size();
    }
  }
  for (const auto& message : full.messages()) {
    for (const v1::Choice& choice : message.deltas()) {
      full_ids += choice.token_ids_size();
      full_scores += choice.scores_size();
    }
  }
  EXPECT_EQ(plain_ids, 0);
  EXPECT_EQ(plain_scores, 0);
  EXPECT_EQ(full_ids, 2);
  EXPECT_EQ(full_scores, 2);
}

TEST_F(GenerateStreamTest, CutStreamEndsWithAMessageThenTheStatus) {
  Serve();
  v1::GenerateRequest request = TextRequest();
  request.mutable_sampling()->set_n(2);
  StreamClient client(inference_.get(), request);
  const FakeFrontend::Started started = frontend_.WaitForStart();
  frontend_.Do([&] {
    started.observer->OnAdmitted(TinyAdmission());
    EXPECT_TRUE(started.observer->OnDelta(TextDelta("done", 1, FinishReason::kLength)));
    frontend_.End(started.number, absl::DeadlineExceededError("too late"), TinySummary());
  });
  const grpc::Status status = client.Wait();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(status.error_message(), "too late");
  const v1::GenerateStreamResponse last = client.messages().back();
  EXPECT_EQ(last.usage().completion_tokens(), 3);
  v1::FinishReason first_choice = v1::FINISH_REASON_UNSPECIFIED;
  for (const v1::Choice& choice : last.deltas()) {
    if (choice.index() == 0) first_choice = choice.finish_reason();
  }
  EXPECT_EQ(first_choice, v1::FINISH_REASON_DEADLINE);
}

TEST_F(GenerateStreamTest, RefusalHasDetailsAndRetryAfter) {
  Serve();
  frontend_.Refuse(
      MakeError(absl::StatusCode::kResourceExhausted, "the queue is full",
                {.reason = "QUEUE_FULL", .field = {}, .retry_after = absl::Milliseconds(1200)}));
  StreamClient client(inference_.get(), TextRequest());
  const grpc::Status status = client.Wait();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "the queue is full");
  EXPECT_EQ(DetailsOf(status).reason, "QUEUE_FULL");
  EXPECT_EQ(DetailsOf(status).domain, "penstock");
  EXPECT_EQ(DetailsOf(status).retry_seconds, 1);
  EXPECT_EQ(client.TrailingMetadata("retry-after"), "2");
  EXPECT_TRUE(client.messages().empty());
  // The frontend counts what reaches it.
  EXPECT_TRUE(telemetry_.requests().empty());
}

TEST_F(GenerateStreamTest, PassesOnTenantDeadlineAndTraceContext) {
  Serve();
  const std::string trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
  StreamClient client(inference_.get(), TextRequest(), StreamClient::Reading::kEager,
                      {{"x-penstock-tenant", "acme"}, {"traceparent", trace}});
  const FakeFrontend::Started started = frontend_.WaitForStart();
  EXPECT_EQ(started.generate->caller.tenant, "acme");
  EXPECT_EQ(started.generate->caller.trace_context, trace);
  EXPECT_EQ(started.generate->caller.deadline, absl::InfiniteDuration());
  frontend_.Do([&] { started.observer->OnAdmitted(TinyAdmission()); });
  client.WaitForMessages(1);
  EXPECT_EQ(client.InitialMetadata("traceparent"), trace);
  client.Cancel();
  EXPECT_EQ(client.Wait().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(GenerateStreamTest, CancelReachesTheFrontend) {
  Serve();
  StreamClient client(inference_.get(), TextRequest());
  const FakeFrontend::Started started = frontend_.WaitForStart();
  frontend_.Do([&] { started.observer->OnAdmitted(TinyAdmission()); });
  client.WaitForMessages(1);
  client.Cancel();
  frontend_.WaitForCancel(started.number);
  EXPECT_EQ(client.Wait().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(GenerateStreamTest, DeltasAfterACancelAreDropped) {
  Serve();
  frontend_.IgnoreCancel();
  StreamClient client(inference_.get(), TextRequest());
  const FakeFrontend::Started started = frontend_.WaitForStart();
  frontend_.Do([&] { started.observer->OnAdmitted(TinyAdmission()); });
  client.Cancel();
  frontend_.WaitForCancel(started.number);
  frontend_.Do([&] {
    for (int i = 0; i < 5000; ++i) EXPECT_TRUE(started.observer->OnDelta(TextDelta("x")));
    frontend_.End(started.number, absl::CancelledError("at last"));
  });
  EXPECT_EQ(client.Wait().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(GenerateStreamTest, SlowReaderIsCutAlone) {
  frontend_.mutable_policy().limits.max_response_queue = 8;
  Serve();
  StreamClient slow(inference_.get(), TextRequest("slow"), StreamClient::Reading::kNone);
  const FakeFrontend::Started slow_request = frontend_.WaitForStart();
  StreamClient fast(inference_.get(), TextRequest("fast"));
  const FakeFrontend::Started fast_request = frontend_.WaitForStart();

  Delta large;
  large.choices.push_back({});
  large.choices[0].text = std::string(64 << 10, 'x');
  // More than the connection's and the stream's buffers hold.
  int taken = 0;
  frontend_.Do([&] {
    slow_request.observer->OnAdmitted(TinyAdmission());
    fast_request.observer->OnAdmitted(TinyAdmission());
    while (taken < 4096 && slow_request.observer->OnDelta(large)) ++taken;
    frontend_.End(slow_request.number, SlowReader(), TinySummary());
  });
  EXPECT_GE(taken, 8);
  EXPECT_LT(taken, 4096);

  for (int i = 0; i < 100; ++i) {
    frontend_.Do([&] { EXPECT_TRUE(fast_request.observer->OnDelta(TextDelta("y"))); });
    // The reader is given the time to read.
    fast.WaitForText(static_cast<std::size_t>(i) + 1);
  }
  frontend_.Do([&] {
    EXPECT_TRUE(fast_request.observer->OnDelta(TextDelta("", 0, FinishReason::kStop)));
    frontend_.End(fast_request.number, absl::OkStatus(), TinySummary());
  });
  EXPECT_TRUE(fast.Wait().ok());
  EXPECT_EQ(fast.Text(), std::string(100, 'y'));

  // What was accepted for the slow one is still there when it reads, then the last message and the
  // status.
  slow.Read();
  const grpc::Status status = slow.Wait();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(DetailsOf(status).reason, "SLOW_READER");
  EXPECT_EQ(slow.Text().size(), static_cast<std::size_t>(taken) * large.choices[0].text.size());
  const v1::GenerateStreamResponse last = slow.messages().back();
  ASSERT_EQ(last.deltas_size(), 1);
  EXPECT_EQ(last.deltas(0).finish_reason(), v1::FINISH_REASON_ERROR);
  EXPECT_EQ(last.usage().completion_tokens(), 3);
}

TEST_F(GenerateStreamTest, ReaderThatNeverReadsIsDroppedAfterTheGrace) {
  frontend_.mutable_policy().limits.max_response_queue = 8;
  RpcServer::Options options;
  options.cut_grace = absl::Milliseconds(20);
  Serve(options);
  StreamClient client(inference_.get(), TextRequest(), StreamClient::Reading::kNone);
  const FakeFrontend::Started started = frontend_.WaitForStart();
  Delta large;
  large.choices.push_back({});
  large.choices[0].text = std::string(64 << 10, 'x');
  frontend_.Do([&] {
    started.observer->OnAdmitted(TinyAdmission());
    while (started.observer->OnDelta(large)) {
    }
    frontend_.End(started.number, SlowReader());
  });
  // Would wait for ever if the call did.
  server_->Shutdown(absl::InfiniteDuration());
  // A client hears of the end once it has read what came before it.
  client.Read();
  EXPECT_FALSE(client.Wait().ok());
}

TEST_F(GenerateStreamTest, LongPromptsAreTakenOffTheGrpcThreads) {
  RpcServer::Options options;
  options.inline_bytes = 10;
  Serve(options);
  AnswerWith("ok");
  StreamClient client(inference_.get(), TextRequest(std::string(100'000, 'p')));
  EXPECT_TRUE(client.Wait().ok());
  EXPECT_EQ(client.Text(), "ok");
}

TEST_F(GenerateStreamTest, ExceptionIsAnsweredInternal) {
  Serve();
  frontend_.Throw();
  StreamClient client(inference_.get(), TextRequest());
  const grpc::Status status = client.Wait();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(DetailsOf(status).reason, "EXCEPTION");
}

TEST_F(GenerateStreamTest, TwoHundredStreamsAtOnceAllArriveWhole) {
  Serve();
  const std::string answer = "the quick brown fox jumps over the lazy dog";
  // Every request gets a letter in turn, as a batch would.
  std::vector<FakeFrontend::Started> started;
  std::vector<std::unique_ptr<StreamClient>> clients;
  for (int i = 0; i < 200; ++i) {
    clients.push_back(std::make_unique<StreamClient>(inference_.get(), TextRequest()));
  }
  for (int i = 0; i < 200; ++i) started.push_back(frontend_.WaitForStart());
  for (const auto& one : started) {
    frontend_.Post([one] { one.observer->OnAdmitted(TinyAdmission()); });
  }
  for (const char letter : answer) {
    frontend_.Post([&started, letter] {
      for (const auto& one : started) {
        EXPECT_TRUE(one.observer->OnDelta(TextDelta(std::string(1, letter))));
      }
    });
  }
  frontend_.Do([&] {
    for (const auto& one : started) {
      EXPECT_TRUE(one.observer->OnDelta(TextDelta("", 0, FinishReason::kLength)));
      frontend_.End(one.number, absl::OkStatus(), TinySummary());
    }
  });
  for (auto& client : clients) {
    EXPECT_TRUE(client->Wait().ok());
    EXPECT_EQ(client->Text(), answer);
    EXPECT_EQ(client->messages().back().usage().completion_tokens(), 3);
  }
  EXPECT_EQ(frontend_.live(), 0);
}

TEST_F(GenerateStreamTest, CancellationsAmidTheStreamEndEveryCallOnce) {
  Serve();
  frontend_.SetScript([this](const FakeFrontend::Started& started) {
    started.observer->OnAdmitted(TinyAdmission());
    for (int i = 0; i < 20; ++i) {
      frontend_.Post([this, started] {
        if (!frontend_.cancelled(started.number)) started.observer->OnDelta(TextDelta("x"));
      });
    }
    frontend_.Post([this, started] {
      if (frontend_.cancelled(started.number)) return;  // its end is on the way
      started.observer->OnDelta(TextDelta("", 0, FinishReason::kStop));
      frontend_.End(started.number, absl::OkStatus());
    });
  });
  std::vector<std::unique_ptr<StreamClient>> clients;
  for (int i = 0; i < 100; ++i) {
    clients.push_back(std::make_unique<StreamClient>(inference_.get(), TextRequest()));
    if (i % 2 == 0) clients.back()->Cancel();
    if (i % 3 == 0) clients[static_cast<std::size_t>(i) / 2]->Cancel();
  }
  int finished = 0;
  for (auto& client : clients) {
    const grpc::Status status = client->Wait();
    EXPECT_TRUE(status.ok() || status.error_code() == grpc::StatusCode::CANCELLED)
        << status.error_message();
    finished += status.ok();
  }
  EXPECT_GE(finished, 1);
  server_->Shutdown(absl::InfiniteDuration());
  EXPECT_EQ(frontend_.live(), 0);
}

}  // namespace
}  // namespace penstock
