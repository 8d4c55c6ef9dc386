#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>

#include "gtest/gtest.h"
#include "server/rpc/request_link.h"
#include "tests/server/rpc/error_details.h"
#include "tests/server/rpc/harness.h"

namespace penstock {
namespace {

using UnaryTest = RpcTest;

// One Generate call that does not block the test.
class PendingGenerate {
 public:
  PendingGenerate(v1::InferenceService::Stub* stub, const v1::GenerateRequest& request,
                  absl::Duration timeout = absl::InfiniteDuration())
      : request_(request) {
    if (timeout != absl::InfiniteDuration()) {
      context_.set_deadline(std::chrono::system_clock::now() + absl::ToChronoNanoseconds(timeout));
    }
    stub->async()->Generate(&context_, &request_, &response_, [this](const grpc::Status& status) {
      std::lock_guard<std::mutex> lock(mutex_);
      status_ = status;
      changed_.notify_all();
    });
  }
  void Cancel() { context_.TryCancel(); }
  grpc::Status Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return status_.has_value(); });
    return *status_;
  }
  const v1::GenerateResponse& response() const { return response_; }

 private:
  grpc::ClientContext context_;
  const v1::GenerateRequest request_;
  v1::GenerateResponse response_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<grpc::Status> status_;
};

TEST_F(UnaryTest, GenerateCollectsTheChoices) {
  Serve();
  frontend_.SetScript([this](const FakeFrontend::Started& started) {
    started.observer->OnAdmitted(TinyAdmission());
    started.observer->OnDelta(TextDelta("one ", 1));
    started.observer->OnDelta(TextDelta("zero", 0, FinishReason::kStop));
    Delta last = TextDelta("two", 1, FinishReason::kStop);
    last.choices[0].stop_string = "\n";
    started.observer->OnDelta(last);
    frontend_.End(started.number, absl::OkStatus(), TinySummary());
  });
  v1::GenerateRequest request = TextRequest();
  request.mutable_sampling()->set_n(2);
  request.mutable_response()->set_token_ids(true);
  PendingGenerate call(inference_.get(), request);
  ASSERT_TRUE(call.Wait().ok());
  const v1::GenerateResponse& response = call.response();
  EXPECT_EQ(response.request_id(), "r1");
  EXPECT_EQ(response.model(), "tiny");
  EXPECT_EQ(response.assignment().router(), "linear");
  ASSERT_EQ(response.choices_size(), 2);
  EXPECT_EQ(response.choices(0).index(), 0);
  EXPECT_EQ(response.choices(0).text(), "zero");
  EXPECT_EQ(response.choices(1).index(), 1);
  EXPECT_EQ(response.choices(1).text(), "one two");
  EXPECT_EQ(response.choices(1).token_ids_size(), 7);
  EXPECT_EQ(response.choices(1).stop_string(), "\n");
  EXPECT_EQ(response.choices(1).finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(response.usage().prompt_tokens(), 5);
  EXPECT_EQ(response.timing().first_token().nanos(), 3'000'000);
}

TEST_F(UnaryTest, GenerateTellsTheStatusOfACutRequest) {
  Serve();
  PendingGenerate call(inference_.get(), TextRequest());
  const FakeFrontend::Started started = frontend_.WaitForStart();
  frontend_.Do([&] {
    started.observer->OnAdmitted(TinyAdmission());
    frontend_.End(
        started.number,
        MakeError(absl::StatusCode::kUnavailable, "going down",
                  {.reason = "SHUTTING_DOWN", .field = {}, .retry_after = absl::Seconds(1)}));
  });
  const grpc::Status status = call.Wait();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "going down");
  EXPECT_EQ(DetailsOf(status).reason, "SHUTTING_DOWN");
}

TEST_F(UnaryTest, ClientThatGoesAwayCancelsTheRequest) {
  Serve();
  PendingGenerate call(inference_.get(), TextRequest());
  const FakeFrontend::Started started = frontend_.WaitForStart();
  call.Cancel();
  frontend_.WaitForCancel(started.number);
  EXPECT_EQ(call.Wait().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(UnaryTest, DeadlineIsPassedOnAndHeld) {
  Serve();
  const absl::Duration before = Clock::Real().Monotonic();
  PendingGenerate far(inference_.get(), TextRequest(), absl::Hours(1));
  const FakeFrontend::Started started = frontend_.WaitForStart();
  const absl::Duration deadline = started.generate->caller.deadline;
  EXPECT_GT(deadline, before + absl::Minutes(59));
  EXPECT_LT(deadline, Clock::Real().Monotonic() + absl::Minutes(61));
  far.Cancel();
  far.Wait();

  PendingGenerate near(inference_.get(), TextRequest(), absl::Milliseconds(300));
  const FakeFrontend::Started held = frontend_.WaitForStart();
  frontend_.WaitForCancel(held.number);
  EXPECT_EQ(near.Wait().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(UnaryTest, ExceptionIsAnsweredInternal) {
  Serve();
  frontend_.Throw();
  PendingGenerate call(inference_.get(), TextRequest());
  const grpc::Status status = call.Wait();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(DetailsOf(status).reason, "EXCEPTION");
}

TEST_F(UnaryTest, ScoreGivesWhatFollowsTheSkippedTokens) {
  Serve();
  frontend_.SetScript([this](const FakeFrontend::Started& started) {
    started.observer->OnAdmitted(TinyAdmission());
    Delta first, second;
    first.prompt_scores = {Scored('b', -1), Scored('c', -2)};  // positions 1 and 2
    second.prompt_scores = {Scored('d', -4), Scored('e', -8)};
    second.prompt_scores[1].top = {{.token = 'x', .logprob = -0.25f}};
    started.observer->OnDelta(first);
    started.observer->OnDelta(second);
    started.observer->OnDelta(TextDelta("", 0, FinishReason::kLength));
    frontend_.End(started.number, absl::OkStatus(), TinySummary());
  });
  const struct {
    int skip;
    int scores;
    double total;
  } cases[] = {{0, 4, -15}, {1, 4, -15}, {2, 3, -14}, {4, 1, -8}};
  for (const auto& test : cases) {
    v1::ScoreRequest request;
    request.set_text("abcde");
    request.set_skip_tokens(test.skip);
    grpc::ClientContext context;
    v1::ScoreResponse response;
    ASSERT_TRUE(inference_->Score(&context, request, &response).ok());
    ASSERT_EQ(response.scores_size(), test.scores) << test.skip;
    EXPECT_EQ(response.total_logprob(), test.total);
    EXPECT_EQ(response.scores(test.scores - 1).token(), "e");
    EXPECT_EQ(response.scores(test.scores - 1).top(0).token(), "x");
    EXPECT_EQ(response.request_id(), "r1");
    EXPECT_EQ(response.usage().prompt_tokens(), 5);
  }
}

TEST_F(UnaryTest, TokenizeAndDetokenizeAreInverse) {
  Serve();
  const std::string text = "grüß <|im_end|>";
  for (const bool special : {false, true}) {
    v1::TokenizeRequest request;
    request.set_text(text);
    request.set_parse_special(special);
    grpc::ClientContext context;
    v1::TokenizeResponse tokens;
    ASSERT_TRUE(inference_->Tokenize(&context, request, &tokens).ok());
    EXPECT_EQ(tokens.ids_size(), special ? 8 : 17);
    ASSERT_EQ(tokens.tokens_size(), tokens.ids_size());
    std::string bytes;
    for (const std::string& token : tokens.tokens()) bytes += token;
    EXPECT_EQ(bytes, text);

    v1::DetokenizeRequest back;
    *back.mutable_ids() = tokens.ids();
    back.set_keep_special(true);
    grpc::ClientContext back_context;
    v1::DetokenizeResponse detokenized;
    ASSERT_TRUE(inference_->Detokenize(&back_context, back, &detokenized).ok());
    EXPECT_EQ(detokenized.text(), text);

    back.set_keep_special(false);
    grpc::ClientContext plain_context;
    ASSERT_TRUE(inference_->Detokenize(&plain_context, back, &detokenized).ok());
    EXPECT_EQ(detokenized.text(), special ? "grüß " : text);
  }
}

TEST_F(UnaryTest, TokenizeRendersChats) {
  frontend_.mutable_text().chat = std::make_shared<const ChatTemplate>(ChatTemplate::Parse(
      "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] "
      "}}<|im_end|>{% endfor %}"));
  Serve();
  v1::TokenizeRequest request;
  v1::ChatMessage* message = request.mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content("hi");
  grpc::ClientContext context;
  v1::TokenizeResponse tokens;
  const grpc::Status status = inference_->Tokenize(&context, request, &tokens);
  ASSERT_TRUE(status.ok()) << status.error_code() << ": " << status.error_message();
  ASSERT_EQ(tokens.ids_size(), 9);  // <|im_start|> u s e r \n h i <|im_end|>
  EXPECT_EQ(tokens.ids(0), 257);
  EXPECT_EQ(tokens.ids(8), 258);
}

TEST_F(UnaryTest, GetModelInfoTellsWhatIsServed) {
  frontend_.mutable_text().eos_token_ids = {256, 258};
  Serve();
  grpc::ClientContext context;
  v1::GetModelInfoResponse info;
  ASSERT_TRUE(inference_->GetModelInfo(&context, {}, &info).ok());
  EXPECT_EQ(info.name(), "tiny");
  EXPECT_EQ(info.backend(), "cpu");
  EXPECT_EQ(info.dtype(), "float32");
  EXPECT_EQ(info.num_layers(), 3);
  EXPECT_EQ(info.sparse_layers_size(), 2);
  EXPECT_EQ(info.num_experts(), 4);
  EXPECT_EQ(info.experts_per_token(), 2);
  EXPECT_EQ(info.hidden_size(), 8);
  EXPECT_EQ(info.vocab_size(), 259);
  EXPECT_EQ(info.max_context(), 8192);
  EXPECT_EQ(info.kv_tokens(), 1600);
  EXPECT_EQ(info.weight_bytes(), 1000);
  EXPECT_EQ(info.kv_bytes(), 2000);
  EXPECT_EQ(info.eos_token_ids_size(), 2);
  EXPECT_FALSE(info.has_chat_template());
  EXPECT_EQ(info.default_router(), "linear");
  EXPECT_EQ(info.server_version(), "1.2.3");
}

TEST(RequestLinkTest, CancelBeforeTheStartTakesEffectAtTheStart) {
  FakeFrontend frontend;
  RequestLink link(&frontend);
  EXPECT_FALSE(link.cancelled());
  link.Cancel();
  EXPECT_TRUE(link.cancelled());
  EXPECT_FALSE(frontend.cancelled(7));
  link.Started(7);
  EXPECT_TRUE(frontend.cancelled(7));
}

}  // namespace
}  // namespace penstock
