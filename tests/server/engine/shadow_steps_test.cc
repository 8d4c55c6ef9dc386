// Which steps of the engine ask shadow routers, and that they change nothing.
#include "server/engine/shadow_steps.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/engine/engine.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_model.h"
#include "tests/support/fake_telemetry.h"

namespace penstock {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

std::shared_ptr<const LoadedRouter> Router(const std::string& name) {
  return std::make_shared<const LoadedRouter>(LoadedRouter{
      .name = name, .fingerprint = name, .path = {}, .loaded_at = {}, .router = nullptr});
}

// Parameter: steps in flight.
class ShadowStepsTest : public ::testing::TestWithParam<int> {
 protected:
  void Make(bool backend_can = true) {
    auto model = std::make_unique<FakeModel>(
        FakeModel::Options{.max_in_flight = GetParam(),
                           .shadow_routing = backend_can,
                           .shadow_time = absl::Milliseconds(1),
                           .on_step = [this] { clock_.Advance(absl::Milliseconds(10)); }});
    Engine::Options options;
    options.shadows = [this] {
      ++looks_;
      return loaded_;
    };
    auto engine = Engine::Create(std::move(model), std::move(options), &telemetry_, &clock_);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    engine_->SetEventHandler([this](const std::vector<SequenceEvent>& events) {
      for (const SequenceEvent& event : events) {
        for (const ScoredToken& token : event.tokens) tokens_.push_back(token.token.token);
      }
    });
  }

  // A sequence of so many tokens, one a step, each of 10 ms.
  void Run(int tokens) {
    SequenceSpec spec;
    spec.id = ++last_id_;
    spec.tenant = "acme";
    spec.router = loaded_[0];
    spec.prompt = {1, 2, 3};
    spec.stopping.max_new_tokens = tokens;
    EXPECT_TRUE(engine_->Submit({spec}).ok());
    while (engine_->RunStep()) {
    }
  }

  int Count(ShadowOutcome outcome) const {
    int count = 0;
    for (const StepEvent& step : telemetry_.steps()) count += step.shadow == outcome;
    return count;
  }

  FakeClock clock_;
  FakeTelemetry telemetry_;
  std::vector<std::shared_ptr<const LoadedRouter>> loaded_ = {Router("a"), Router("b"),
                                                              Router("c")};
  std::unique_ptr<Engine> engine_;
  std::vector<TokenId> tokens_;
  SequenceId last_id_ = 0;
  int looks_ = 0;
};

TEST_P(ShadowStepsTest, AsksNobodyUnlessToldTo) {
  Make();
  Run(20);
  EXPECT_EQ(Count(ShadowOutcome::kNone), static_cast<int>(telemetry_.steps().size()));
  EXPECT_EQ(looks_, 0);
}

TEST_P(ShadowStepsTest, ReportsWhatTheSampleCounted) {
  Make();
  engine_->SetShadowSampling({.share = 0.3, .max_cost = 1, .seed = 1});
  Run(200);
  int counted = 0;
  for (const StepEvent& step : telemetry_.steps()) {
    if (step.shadow != ShadowOutcome::kCounted) {
      EXPECT_THAT(step.shadows, IsEmpty());
      EXPECT_EQ(step.shadow_time, absl::ZeroDuration());
      continue;
    }
    ++counted;
    EXPECT_EQ(step.shadow_time, absl::Milliseconds(1));
    ASSERT_THAT(step.shadows, SizeIs(4)) << "two routers, two layers";
    EXPECT_EQ(step.shadows[0].router, "a");
    EXPECT_EQ(step.shadows[0].shadow, "b");
  }
  EXPECT_GT(counted, 40);
  EXPECT_LT(counted, 80);
}

TEST_P(ShadowStepsTest, TheAnswerIsTheSame) {
  Make();
  Run(50);
  const std::vector<TokenId> want = std::exchange(tokens_, {});
  engine_->SetShadowSampling({.share = 1, .max_cost = 1});
  Run(50);
  EXPECT_EQ(tokens_, want);
  EXPECT_GT(Count(ShadowOutcome::kCounted), 40);
}

TEST_P(ShadowStepsTest, SkipsStepsThatWouldCostTooMuch) {
  Make();
  engine_->SetShadowSampling({.share = 1, .max_cost = 0.01});
  const absl::Duration start = clock_.Monotonic();
  Run(250);
  absl::Duration steps, shadows;
  for (const StepEvent& step : telemetry_.steps()) {
    steps += step.duration;
    shadows += step.shadow_time;
  }
  EXPECT_GT(Count(ShadowOutcome::kCounted), 5);
  EXPECT_GT(Count(ShadowOutcome::kSkipped), 100);
  EXPECT_LE(absl::FDivDuration(shadows, steps), 0.0105);
  EXPECT_EQ(steps, clock_.Monotonic() - start) << "no time is counted for two steps";
}

TEST_P(ShadowStepsTest, AsksThoseThatAreNamed) {
  Make();
  engine_->SetShadowSampling({.share = 1, .max_cost = 1, .routers = {"a", "c", "gone"}});
  Run(9);
  ASSERT_GT(Count(ShadowOutcome::kCounted), 5);
  for (const StepEvent& step : telemetry_.steps()) {
    for (const ShadowCounts& counts : step.shadows) EXPECT_EQ(counts.shadow, "c") << "a serves";
  }
}

TEST_P(ShadowStepsTest, AsksNobodyWhereOneRouterIsAllThereIs) {
  Make();
  loaded_.resize(1);
  engine_->SetShadowSampling({.share = 1, .max_cost = 1});
  Run(5);
  EXPECT_EQ(Count(ShadowOutcome::kNone), static_cast<int>(telemetry_.steps().size()));
}

TEST_P(ShadowStepsTest, AsksNobodyOnABackendThatCannot) {
  Make(/*backend_can=*/false);
  engine_->SetShadowSampling({.share = 1, .max_cost = 1});
  Run(5);
  EXPECT_EQ(Count(ShadowOutcome::kNone), static_cast<int>(telemetry_.steps().size()));
}

INSTANTIATE_TEST_SUITE_P(StepsInFlight, ShadowStepsTest, ::testing::Values(1, 2));

}  // namespace
}  // namespace penstock
