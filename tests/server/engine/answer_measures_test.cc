#include "server/engine/answer_measures.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace penstock {
namespace {

ScoredToken Token(TokenId id, float logprob = -0.5f) {
  ScoredToken token;
  token.token = {id, logprob};
  return token;
}

TEST(AnswerMeasures, CountsRunsOfFourThatOccurredEarlier) {
  AnswerMeasures measures;
  // abcabcabc: abca bcab cabc, then the same three again.
  for (const TokenId id : {1, 2, 3, 1, 2, 3, 1, 2, 3}) {
    measures.Add({Token(id)}, absl::ZeroDuration());
  }
  RequestOutcome outcome;
  measures.AddTo(&outcome);
  EXPECT_EQ(outcome.four_grams, 6);
  EXPECT_EQ(outcome.repeated_four_grams, 3);
  EXPECT_EQ(outcome.logprob_count, 9);
  EXPECT_DOUBLE_EQ(outcome.logprob_sum, -4.5);
}

TEST(AnswerMeasures, MeasuresGapsBetweenTokensNotBeforeTheFirst) {
  AnswerMeasures measures;
  measures.Add({Token(1)}, absl::Milliseconds(100));
  measures.Add({}, absl::Milliseconds(150));
  measures.Add({Token(2)}, absl::Milliseconds(350));
  RequestOutcome outcome;
  outcome.inter_token_gaps = {1};
  measures.AddTo(&outcome);
  EXPECT_THAT(outcome.inter_token_gaps, testing::ElementsAre(1, testing::FloatNear(0.25f, 1e-6f)));
  EXPECT_EQ(outcome.four_grams, 0) << "three tokens make none";
}

}  // namespace
}  // namespace penstock
