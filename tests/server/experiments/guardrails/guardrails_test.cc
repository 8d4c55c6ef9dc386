#include "server/experiments/guardrails/guardrails.h"

#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::IsEmpty;
using ::testing::SizeIs;

RequestOutcome Of(const std::string& arm, int period = 1) {
  RequestOutcome outcome;
  outcome.request.choice.experiment = "e";
  outcome.request.choice.reason = "experiment";
  outcome.request.choice.arm = arm;
  outcome.request.choice.period = period;
  outcome.completion_tokens = 10;
  return outcome;
}

class GuardrailsTest : public ::testing::Test {
 protected:
  void Watch(std::vector<Guardrail> rules, int period = 1, bool b_halted = false) {
    guardrails_.SetExperiments({{.name = "e",
                                 .period = period,
                                 .arms = {{"a", "linear"}, {"b", "mlp", b_halted}},
                                 .guardrails = std::move(rules)}});
  }

  void End(
      int count, const std::string& arm,
      const std::function<void(RequestOutcome&)>& change = [](RequestOutcome&) {}) {
    RequestOutcome outcome = Of(arm);
    change(outcome);
    for (int i = 0; i < count; ++i) guardrails_.OnRequestEnded(outcome, now_);
  }

  std::vector<std::string> Breached() const {
    std::vector<std::string> arms;
    for (const GuardrailBreach& breach : guardrails_.Check(now_)) {
      EXPECT_EQ(breach.experiment, "e");
      arms.push_back(breach.arm);
    }
    return arms;
  }

  std::optional<double> ValueOf(const std::string& metric, const std::string& arm = "b") const {
    for (const GuardrailReading& reading : guardrails_.ReadingsOf("e", metric, now_)) {
      if (reading.arm == arm) return reading.value;
    }
    return std::nullopt;
  }

  Guardrails guardrails_;
  absl::Duration now_ = absl::Hours(5);
};

Guardrail ErrorRate() {
  return {.metric = "error_rate",
          .max = 0.1,
          .min = {},
          .window = absl::Minutes(1),
          .min_requests = 20};
}

void Fail(RequestOutcome& outcome) { outcome.code = absl::StatusCode::kInternal; }

TEST_F(GuardrailsTest, ABoundIsHeldOnceThereAreEnoughRequests) {
  Watch({ErrorRate()});
  End(2, "b", Fail);
  End(17, "b");
  EXPECT_THAT(Breached(), IsEmpty()) << "19 requests are too few";
  EXPECT_EQ(ValueOf("error_rate"), std::nullopt);
  End(1, "b");
  EXPECT_EQ(ValueOf("error_rate"), 0.1);
  EXPECT_THAT(Breached(), IsEmpty()) << "the bound itself is allowed";
  End(1, "b", Fail);
  const std::vector<GuardrailBreach> breaches = guardrails_.Check(now_);
  ASSERT_THAT(breaches, SizeIs(1));
  EXPECT_EQ(breaches[0].arm, "b");
  EXPECT_EQ(breaches[0].metric, "error_rate");
  EXPECT_DOUBLE_EQ(breaches[0].value, 3.0 / 21);
  EXPECT_EQ(breaches[0].bound, 0.1);
  EXPECT_EQ(breaches[0].reason,
            "error_rate is 0.142857, at most 0.1 is allowed, over 21 requests of the last 1m");
}

TEST_F(GuardrailsTest, WhatLeftTheWindowCountsNoMore) {
  Watch({ErrorRate()});
  End(20, "b", Fail);
  EXPECT_THAT(Breached(), ElementsAre("b"));
  now_ += absl::Seconds(57);
  EXPECT_THAT(Breached(), ElementsAre("b"));
  now_ += absl::Seconds(4);
  EXPECT_THAT(Breached(), IsEmpty());
  End(20, "b");
  EXPECT_EQ(ValueOf("error_rate"), 0);
}

TEST_F(GuardrailsTest, OnlyTheServersFailuresAreErrors) {
  Watch({ErrorRate()});
  for (const auto code : {absl::StatusCode::kCancelled, absl::StatusCode::kResourceExhausted,
                          absl::StatusCode::kUnavailable}) {
    End(20, "b", [code](RequestOutcome& outcome) { outcome.code = code; });
  }
  EXPECT_EQ(ValueOf("error_rate"), 0);
  End(60, "b", [](RequestOutcome& outcome) { outcome.code = absl::StatusCode::kDeadlineExceeded; });
  EXPECT_EQ(ValueOf("error_rate"), 0.5);
}

TEST_F(GuardrailsTest, OneNonFiniteLogitIsEnoughWithoutBeingListed) {
  Watch({});
  End(1000, "a");
  End(1, "b", [](RequestOutcome& outcome) { outcome.non_finite_logits = true; });
  const std::vector<GuardrailBreach> breaches = guardrails_.Check(now_);
  ASSERT_THAT(breaches, SizeIs(1));
  EXPECT_EQ(breaches[0].arm, "b");
  EXPECT_EQ(breaches[0].metric, "non_finite_logits");
  EXPECT_EQ(breaches[0].value, 1);
}

TEST_F(GuardrailsTest, AListedBoundOnNonFiniteLogitsReplacesTheImpliedOne) {
  Watch({{.metric = "non_finite_logits", .max = 1, .min = {}, .window = absl::Minutes(1)}});
  End(1, "b", [](RequestOutcome& outcome) { outcome.non_finite_logits = true; });
  EXPECT_THAT(Breached(), IsEmpty());
  End(1, "b", [](RequestOutcome& outcome) { outcome.non_finite_logits = true; });
  EXPECT_THAT(Breached(), ElementsAre("b"));
}

TEST_F(GuardrailsTest, TheP99IsOfGapsNotOfRequests) {
  Watch({{.metric = "inter_token_latency_p99",
          .max = 0.05,
          .min = {},
          .window = absl::Minutes(1),
          .min_requests = 1}});
  End(99, "b", [](RequestOutcome& outcome) { outcome.inter_token_gaps.assign(10, 0.01f); });
  EXPECT_THAT(Breached(), IsEmpty());
  End(2, "b", [](RequestOutcome& outcome) { outcome.inter_token_gaps.assign(10, 0.5f); });
  EXPECT_NEAR(*ValueOf("inter_token_latency_p99"), 0.5, 0.005);
  EXPECT_THAT(Breached(), ElementsAre("b"));
}

TEST_F(GuardrailsTest, RepetitionIsOfFourGrams) {
  Watch({{.metric = "repetition",
          .max = 0.5,
          .min = {},
          .window = absl::Minutes(1),
          .min_requests = 2}});
  End(2, "b", [](RequestOutcome& outcome) { outcome.four_grams = 0; });
  EXPECT_EQ(ValueOf("repetition"), std::nullopt) << "short answers have none";
  End(1, "b", [](RequestOutcome& outcome) {
    outcome.four_grams = 10;
    outcome.repeated_four_grams = 6;
  });
  EXPECT_EQ(ValueOf("repetition"), 0.6);
  EXPECT_THAT(Breached(), ElementsAre("b"));
}

// [layers of 4 experts], from layer 1 on.
std::vector<LayerLoad> Loads(std::vector<std::vector<std::int64_t>> slots) {
  std::vector<LayerLoad> loads;
  for (std::size_t i = 0; i < slots.size(); ++i) {
    loads.push_back({.layer = static_cast<int>(i) + 1, .slots = std::move(slots[i])});
  }
  return loads;
}

TEST_F(GuardrailsTest, RoutingIsThatOfTheWorstLayerOfTheArmsRouterSinceTheLookBefore) {
  const Guardrail idle = {
      .metric = "idle_experts", .max = 1, .min = {}, .window = absl::Minutes(1), .min_requests = 1};
  Guardrail imbalance = idle;
  imbalance.metric = "imbalance";
  imbalance.max = 3;
  Watch({idle, imbalance});
  // What was routed before anybody watched is left out.
  guardrails_.OnRouterLoads("mlp", Loads({{900, 0, 0, 0}, {0, 0, 0, 900}}), now_);
  EXPECT_EQ(ValueOf("idle_experts"), std::nullopt);
  guardrails_.OnRouterLoads("mlp", Loads({{910, 10, 10, 10}, {15, 15, 9, 900}}), now_);
  EXPECT_EQ(ValueOf("idle_experts"), std::nullopt) << "40 slots over 4 experts are too few";
  End(1, "b");
  guardrails_.OnRouterLoads("mlp", Loads({{925, 25, 25, 25}, {45, 45, 9, 900}}), now_);
  EXPECT_EQ(ValueOf("idle_experts"), 1) << "in layer 2: 45 45 9 0";
  EXPECT_DOUBLE_EQ(*ValueOf("imbalance"), 4 * 45 / 99.0);
  EXPECT_THAT(Breached(), IsEmpty());
  EXPECT_EQ(ValueOf("idle_experts", "a"), std::nullopt) << "another router's";
  // Loaded anew, its sums start again.
  guardrails_.OnRouterLoads("mlp", Loads({{0, 0, 0, 900}, {0, 0, 0, 900}}), now_);
  EXPECT_GT(*ValueOf("imbalance"), 3);
  EXPECT_THAT(Breached(), ElementsAre("b"));
}

TEST_F(GuardrailsTest, PairedLogProbabilityIsBoundedFromBelow) {
  Watch({{.metric = "paired_logprob",
          .max = {},
          .min = -0.0625,
          .window = absl::Minutes(1),
          .min_requests = 3}});
  End(50, "b");  // requests are no texts
  for (const double difference : {-0.125, -0.125}) {
    guardrails_.OnPairedScore("e", 1, "b", difference, now_);
  }
  EXPECT_EQ(ValueOf("paired_logprob"), std::nullopt);
  guardrails_.OnPairedScore("e", 1, "b", 0.0625, now_);
  EXPECT_DOUBLE_EQ(*ValueOf("paired_logprob"), -0.0625);
  EXPECT_THAT(Breached(), IsEmpty());
  guardrails_.OnPairedScore("e", 1, "b", -0.3125, now_);
  EXPECT_THAT(guardrails_.Check(now_),
              ElementsAre(Field(&GuardrailBreach::reason,
                                "paired_logprob is -0.125, at least -0.0625 is allowed, over 4 "
                                "texts of the last 1m")));
}

TEST_F(GuardrailsTest, HaltedArmsOtherPeriodsAndControlsStandInsCountNowhere) {
  Watch({ErrorRate()}, /*period=*/2, /*b_halted=*/true);
  End(30, "b", Fail);
  RequestOutcome stand_in = Of("a", 2);
  stand_in.request.choice.reason = "halted";
  stand_in.code = absl::StatusCode::kInternal;
  RequestOutcome earlier = stand_in;
  earlier.request.choice = Of("a", 1).request.choice;
  for (int i = 0; i < 30; ++i) {
    guardrails_.OnRequestEnded(stand_in, now_);
    guardrails_.OnRequestEnded(earlier, now_);
  }
  EXPECT_THAT(Breached(), IsEmpty());
  for (const GuardrailReading& reading : guardrails_.ReadingsOf("e", "error_rate", now_)) {
    EXPECT_EQ(reading.requests, 0) << reading.arm;
  }
}

TEST_F(GuardrailsTest, AResumedArmStartsWithAnEmptyWindow) {
  Watch({ErrorRate()});
  End(30, "b", Fail);
  Watch({ErrorRate()}, 1, /*b_halted=*/true);
  EXPECT_THAT(Breached(), IsEmpty()) << "halted already";
  Watch({ErrorRate()}, 2);
  EXPECT_THAT(Breached(), IsEmpty());
  EXPECT_EQ(ValueOf("error_rate"), std::nullopt);
}

TEST_F(GuardrailsTest, AReloadThatChangesNothingKeepsTheWindows) {
  Watch({ErrorRate()});
  End(30, "b", Fail);
  Watch({ErrorRate()});
  EXPECT_THAT(Breached(), ElementsAre("b"));
  Guardrail wider = ErrorRate();
  wider.window = absl::Hours(1);
  Watch({wider});
  EXPECT_THAT(Breached(), IsEmpty()) << "another window has other sums";
}

}  // namespace
}  // namespace penstock
