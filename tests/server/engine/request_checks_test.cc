#include "server/engine/request_checks.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

const RequestBounds kBounds{.limits = {}, .vocab_size = 100};

SamplingOptions EveryOption() {
  SamplingOptions options;
  options.temperature = 0.5;
  options.top_p = 0.75;
  options.min_p = 0.125;
  options.top_k = 7;
  options.repetition_penalty = 1.5;
  options.presence_penalty = -0.25;
  options.frequency_penalty = 1.25;
  return options;
}

void ExpectEveryOption(const SamplingParams& params) {
  EXPECT_EQ(params.temperature, 0.5);
  EXPECT_EQ(params.top_p, 0.75);
  EXPECT_EQ(params.min_p, 0.125);
  EXPECT_EQ(params.top_k, 7);
  EXPECT_EQ(params.repetition_penalty, 1.5);
  EXPECT_EQ(params.presence_penalty, -0.25);
  EXPECT_EQ(params.frequency_penalty, 1.25);
}

TEST(RequestChecksTest, SamplingOptionsReachTheSequence) {
  SamplingOptions options = EveryOption();
  options.logit_bias = {{3, -100.0F}, {99, 2.5F}};
  const auto params = CheckSampling(options, {}, kBounds);
  ASSERT_TRUE(params.ok()) << params.status();
  ExpectEveryOption(*params);
  EXPECT_THAT(params->logit_bias, ElementsAre(Pair(3, -100.0F), Pair(99, 2.5F)));
}

TEST(RequestChecksTest, UnsetSamplingOptionsAreTheModelsAndThenNeutral) {
  const auto of_model = CheckSampling({}, EveryOption(), kBounds);
  ASSERT_TRUE(of_model.ok()) << of_model.status();
  ExpectEveryOption(*of_model);
  // Neutral values count as set.
  SamplingOptions neutral;
  neutral.temperature = neutral.top_p = neutral.repetition_penalty = 1;
  neutral.min_p = neutral.presence_penalty = neutral.frequency_penalty = 0;
  neutral.top_k = 0;
  for (const auto& params :
       {CheckSampling({}, {}, kBounds), CheckSampling(neutral, EveryOption(), kBounds)}) {
    ASSERT_TRUE(params.ok()) << params.status();
    EXPECT_EQ(params->temperature, 1);
    EXPECT_EQ(params->top_p, 1);
    EXPECT_EQ(params->min_p, 0);
    EXPECT_EQ(params->top_k, 0);
    EXPECT_EQ(params->repetition_penalty, 1);
    EXPECT_EQ(params->presence_penalty, 0);
    EXPECT_EQ(params->frequency_penalty, 0);
    EXPECT_THAT(params->logit_bias, IsEmpty());
  }
}

TEST(RequestChecksTest, StoppingOptionsReachTheSequence) {
  StoppingOptions options;
  options.max_new_tokens = 9;
  options.min_new_tokens = 4;
  options.stop_token_ids = {5, 6};
  const auto params = CheckStopping(options, {90, 91}, 10, kBounds);
  ASSERT_TRUE(params.ok()) << params.status();
  EXPECT_EQ(params->max_new_tokens, 9);
  EXPECT_EQ(params->min_new_tokens, 4);
  EXPECT_THAT(params->stop_token_ids, ElementsAre(90, 91, 5, 6));
  options.ignore_eos = true;
  EXPECT_THAT(CheckStopping(options, {90, 91}, 10, kBounds)->stop_token_ids, ElementsAre(5, 6));
}

TEST(RequestChecksTest, UnsetMaxNewTokensIsWhatLimitsAndContextLeave) {
  const Limits& limits = kBounds.limits;
  EXPECT_EQ(CheckStopping({}, {}, 10, kBounds)->max_new_tokens, limits.max_new_tokens);
  EXPECT_EQ(CheckStopping({}, {}, limits.max_context - 3, kBounds)->max_new_tokens, 3);
}

}  // namespace
}  // namespace penstock
