#include "server/rpc/response_queue.h"

#include <optional>
#include <string>

#include "gtest/gtest.h"
#include "tests/server/rpc/harness.h"

namespace penstock {
namespace {

class ResponseQueueTest : public ::testing::Test {
 protected:
  ReplyShape Shape() {
    return {.tokenizer = tokenizer_.get(),
            .sparse_layers = {1, 2},
            .top_k = 2,
            .token_ids = true,
            .scores = true};
  }
  std::shared_ptr<const Tokenizer> tokenizer_ = TinyTokenizer();
};

TEST_F(ResponseQueueTest, MergesDeltasThatWait) {
  ResponseQueue queue(Shape(), 2, 10);
  ASSERT_TRUE(queue.PushDelta(TextDelta("ab", 0)));
  ASSERT_TRUE(queue.PushDelta(TextDelta("x", 1)));
  ASSERT_TRUE(queue.PushDelta(TextDelta("c", 0, FinishReason::kLength)));
  const std::optional<v1::GenerateStreamResponse> message = queue.Pop();
  ASSERT_TRUE(message);
  ASSERT_EQ(message->deltas_size(), 2);
  EXPECT_EQ(message->deltas(0).index(), 0);
  EXPECT_EQ(message->deltas(0).text(), "abc");
  EXPECT_EQ(message->deltas(0).token_ids_size(), 3);
  EXPECT_EQ(message->deltas(0).scores(2).token(), "c");
  EXPECT_EQ(message->deltas(0).finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(message->deltas(1).index(), 1);
  EXPECT_EQ(message->deltas(1).text(), "x");
  EXPECT_EQ(message->deltas(1).finish_reason(), v1::FINISH_REASON_UNSPECIFIED);
  EXPECT_FALSE(queue.Pop());
}

TEST_F(ResponseQueueTest, KeepsTheAdmissionAlone) {
  ResponseQueue queue(Shape(), 1, 10);
  queue.PushAdmission(TinyAdmission());
  ASSERT_TRUE(queue.PushDelta(TextDelta("a")));
  const std::optional<v1::GenerateStreamResponse> first = queue.Pop();
  ASSERT_TRUE(first);
  EXPECT_EQ(first->assignment().router(), "linear");
  EXPECT_EQ(first->assignment().bucket(), -1);
  EXPECT_EQ(first->deltas_size(), 0);
  EXPECT_EQ(queue.Pop()->deltas(0).text(), "a");
}

TEST_F(ResponseQueueTest, RefusesDeltasBeyondItsCapacityHoweverTheyWereMerged) {
  ResponseQueue queue(Shape(), 1, 3);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(queue.PushDelta(TextDelta("a")));
  EXPECT_FALSE(queue.PushDelta(TextDelta("b")));
  EXPECT_EQ(queue.Pop()->deltas(0).text(), "aaa");
  EXPECT_TRUE(queue.PushDelta(TextDelta("c")));
  EXPECT_EQ(queue.Pop()->deltas(0).text(), "c");
}

TEST_F(ResponseQueueTest, KeepsMessagesSmall) {
  ResponseQueue queue(Shape(), 1, 1000);
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(queue.PushDelta(TextDelta("a")));
  std::string text;
  int messages = 0;
  while (const auto message = queue.Pop()) {
    EXPECT_LE(message->deltas(0).text().size(), 32u);
    text += message->deltas(0).text();
    ++messages;
  }
  EXPECT_EQ(text, std::string(1000, 'a'));
  EXPECT_EQ(messages, 32);
}

TEST_F(ResponseQueueTest, SendsPromptScoresByThemselves) {
  ResponseQueue queue(Shape(), 1, 10);
  ASSERT_TRUE(queue.PushDelta(TextDelta("a")));
  Delta scores;
  scores.prompt_scores = {Scored('x', -1), Scored('y', -2)};
  ASSERT_TRUE(queue.PushDelta(scores));
  ASSERT_TRUE(queue.PushDelta(TextDelta("b")));
  EXPECT_EQ(queue.Pop()->prompt_scores_size(), 0);
  const auto message = queue.Pop();
  ASSERT_EQ(message->prompt_scores_size(), 2);
  EXPECT_EQ(message->prompt_scores(1).token(), "y");
  EXPECT_EQ(message->prompt_scores(1).logprob(), -2);
  EXPECT_EQ(message->deltas_size(), 0);
  EXPECT_EQ(queue.Pop()->deltas(0).text(), "b");
}

TEST_F(ResponseQueueTest, EndsOpenChoicesAsTheStatusSays) {
  const struct {
    absl::Status status;
    v1::FinishReason reason;
  } cases[] = {{absl::CancelledError("x"), v1::FINISH_REASON_CANCELLED},
               {absl::DeadlineExceededError("x"), v1::FINISH_REASON_DEADLINE},
               {absl::ResourceExhaustedError("x"), v1::FINISH_REASON_ERROR},
               {absl::InternalError("x"), v1::FINISH_REASON_ERROR}};
  for (const auto& test : cases) {
    ResponseQueue queue(Shape(), 3, 10);
    ASSERT_TRUE(queue.PushDelta(TextDelta("a", 1, FinishReason::kStop)));
    ASSERT_EQ(queue.Pop()->deltas_size(), 1);
    queue.PushEnd(test.status, TinySummary());
    const auto message = queue.Pop();
    ASSERT_EQ(message->deltas_size(), 2);
    EXPECT_EQ(message->deltas(0).index(), 0);
    EXPECT_EQ(message->deltas(0).finish_reason(), test.reason);
    EXPECT_EQ(message->deltas(1).index(), 2);
    EXPECT_EQ(message->deltas(1).finish_reason(), test.reason);
    EXPECT_EQ(message->usage().completion_tokens(), 3);
    EXPECT_TRUE(queue.empty());
  }
}

TEST_F(ResponseQueueTest, PutsUsageAndTimingIntoTheLastDeltaThatWaits) {
  ResponseQueue queue(Shape(), 1, 10);
  ASSERT_TRUE(queue.PushDelta(TextDelta("a", 0, FinishReason::kStop)));
  queue.PushEnd(absl::OkStatus(), TinySummary());
  const auto message = queue.Pop();
  EXPECT_EQ(message->deltas(0).finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(message->usage().prompt_tokens(), 5);
  EXPECT_EQ(message->usage().cached_prompt_tokens(), 2);
  EXPECT_EQ(message->timing().decode().seconds(), 1);
  EXPECT_EQ(message->timing().decode().nanos(), 500'000'000);
  EXPECT_FALSE(queue.Pop());
}

TEST_F(ResponseQueueTest, JoinsTracesOfConsecutivePositions) {
  ResponseQueue queue(Shape(), 1, 10);
  for (const int position : {5, 6, 6, 7}) {
    Delta delta = TextDelta("a");
    delta.choices[0].traces.push_back({.position = position,
                                       .experts = {0, 1, 2, static_cast<std::uint8_t>(position)},
                                       .weights = {1, 2, 3, 4}});
    ASSERT_TRUE(queue.PushDelta(delta));
  }
  const auto message = queue.Pop();
  const v1::RouterTrace& trace = message->deltas(0).trace();
  EXPECT_EQ(trace.first_position(), 5);
  EXPECT_EQ(trace.num_positions(), 3);
  EXPECT_EQ(trace.k(), 2);
  EXPECT_EQ(trace.layers_size(), 2);
  EXPECT_EQ(trace.experts(), std::string("\0\1\2\5\0\1\2\6\0\1\2\7", 12));
  EXPECT_EQ(trace.weights_size(), 12);
}

TEST_F(ResponseQueueTest, ShowsHalfACharacterAsReplacement) {
  ResponseQueue queue(Shape(), 1, 10);
  Delta delta = TextDelta("");
  delta.choices[0].tokens = {Scored(0xc3)};
  ASSERT_TRUE(queue.PushDelta(delta));
  EXPECT_EQ(queue.Pop()->deltas(0).scores(0).token(), "\xef\xbf\xbd");
}

TEST_F(ResponseQueueTest, HoldsNothingOnceCleared) {
  ResponseQueue queue(Shape(), 1, 2);
  ASSERT_TRUE(queue.PushDelta(TextDelta("a")));
  ASSERT_TRUE(queue.PushDelta(TextDelta("a")));
  queue.Clear();
  EXPECT_TRUE(queue.empty());
  EXPECT_TRUE(queue.PushDelta(TextDelta("a")));
}

}  // namespace
}  // namespace penstock
