#include "server/engine/engine.h"

#include <map>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/base/error.h"
#include "tests/support/fake_clock.h"
#include "tests/support/fake_model.h"
#include "tests/support/fake_telemetry.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

struct Outcome {
  std::vector<TokenId> tokens;
  int endings = 0;
  FinishReason finish = FinishReason::kError;
  absl::Status error;
  SequenceStats stats;
};

// Parameter: steps in flight.
class EngineTest : public ::testing::TestWithParam<int> {
 protected:
  void Make(Scheduler::Options scheduling = {}, FakeModel::Options model_options = {}) {
    model_options.max_in_flight = GetParam();
    auto model = std::make_unique<FakeModel>(model_options);
    model_ = model.get();
    Engine::Options options;
    options.scheduler = scheduling;
    options.on_lost = [this](const absl::Status& status) {
      lost_ = status;
      ++times_lost_;
    };
    auto engine = Engine::Create(std::move(model), std::move(options), &telemetry_, &clock_);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    engine_->SetEventHandler([this](std::vector<SequenceEvent> events) {
      for (SequenceEvent& event : events) {
        Outcome& outcome = outcomes_[event.id];
        for (const ScoredToken& token : event.tokens) outcome.tokens.push_back(token.token.token);
        if (!event.finish) continue;
        ++outcome.endings;
        outcome.finish = *event.finish;
        outcome.error = event.error;
        outcome.stats = event.stats;
      }
    });
  }

  SequenceSpec Spec(SequenceId id, int prompt_tokens, int max_new_tokens) {
    SequenceSpec spec;
    spec.id = id;
    spec.tenant = "default";
    spec.router = router_;
    for (int i = 0; i < prompt_tokens; ++i)
      spec.prompt.push_back(static_cast<TokenId>(id * 7 + i) % 200);
    spec.stopping.max_new_tokens = max_new_tokens;
    return spec;
  }

  // What the fake model answers to `spec` alone.
  std::vector<TokenId> Expected(const SequenceSpec& spec) {
    std::vector<TokenId> tokens = spec.prompt;
    for (int i = 0; i < spec.stopping.max_new_tokens; ++i) {
      tokens.push_back(FakeNextToken(tokens, spec.router->fingerprint, 'a', 26));
    }
    return {tokens.begin() + spec.prompt.size(), tokens.end()};
  }

  void RunUntilIdle() {
    for (int step = 0; step < 10'000; ++step) {
      clock_.Advance(absl::Milliseconds(1));
      if (!engine_->RunStep()) return;
    }
    FAIL() << "the engine never came to rest";
  }

  std::shared_ptr<const LoadedRouter> router_ = std::make_shared<const LoadedRouter>(LoadedRouter{
      .name = "r", .fingerprint = "f", .path = {}, .loaded_at = {}, .router = nullptr});
  FakeClock clock_;
  FakeTelemetry telemetry_;
  absl::Status lost_;
  int times_lost_ = 0;
  std::map<SequenceId, Outcome> outcomes_;
  FakeModel* model_ = nullptr;
  std::unique_ptr<Engine> engine_;
};

INSTANTIATE_TEST_SUITE_P(InFlight, EngineTest, ::testing::Values(1, 2));

TEST_P(EngineTest, EverySequenceGetsItsOwnAnswer) {
  Make();
  std::vector<SequenceSpec> specs;
  for (SequenceId id = 1; id <= 20; ++id) specs.push_back(Spec(id, 1 + static_cast<int>(id), 5));
  ASSERT_TRUE(engine_->Submit(specs).ok());
  RunUntilIdle();
  for (const SequenceSpec& spec : specs) {
    EXPECT_EQ(outcomes_[spec.id].tokens, Expected(spec)) << spec.id;
    EXPECT_EQ(outcomes_[spec.id].endings, 1);
    EXPECT_EQ(outcomes_[spec.id].finish, FinishReason::kLength);
  }
}

TEST_P(EngineTest, ARefusalOfTheSchedulerEndsTheSequence) {
  Make();
  ASSERT_TRUE(engine_->Submit({Spec(1, 100, 2000)}).ok());  // 525 blocks of 256
  RunUntilIdle();
  EXPECT_EQ(outcomes_[1].endings, 1);
  EXPECT_EQ(outcomes_[1].finish, FinishReason::kError);
  EXPECT_EQ(outcomes_[1].error.code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(EngineTest, RefusesWhatTheQueueCannotHold) {
  Scheduler::Options scheduling;
  scheduling.max_batch = 2;
  scheduling.max_queue = 3;
  Make(scheduling);
  std::vector<SequenceSpec> five;
  for (SequenceId id = 1; id <= 5; ++id) five.push_back(Spec(id, 3, 4));
  ASSERT_TRUE(engine_->Submit(five).ok());
  const absl::Status refused = engine_->Submit({Spec(6, 3, 4)});
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetErrorDetail(refused)->reason, "QUEUE_FULL");
  RunUntilIdle();
  EXPECT_TRUE(engine_->Submit({Spec(6, 3, 4)}).ok());
  RunUntilIdle();
  EXPECT_THAT(outcomes_, SizeIs(6));
}

TEST_P(EngineTest, TheQueuesBoundMovesWhileSequencesWait) {
  Scheduler::Options scheduling;
  scheduling.max_batch = 2;
  scheduling.max_queue = 1;
  Make(scheduling);
  const auto submit = [&](SequenceId first, SequenceId last) {
    std::vector<SequenceSpec> specs;
    for (SequenceId id = first; id <= last; ++id) specs.push_back(Spec(id, 3, 4));
    return engine_->Submit(std::move(specs));
  };
  EXPECT_EQ(GetErrorDetail(submit(1, 10))->reason, "QUEUE_FULL");
  engine_->SetMaxQueue(8);
  ASSERT_TRUE(submit(1, 10).ok());
  engine_->SetMaxQueue(2);
  const absl::Status refused = submit(11, 11);
  EXPECT_EQ(GetErrorDetail(refused)->reason, "QUEUE_FULL");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("limits.max_queue is 2"));
  RunUntilIdle();
  for (SequenceId id = 1; id <= 10; ++id)
    EXPECT_EQ(outcomes_[id].finish, FinishReason::kLength) << id;
  EXPECT_TRUE(submit(11, 14).ok());
  EXPECT_FALSE(submit(15, 15).ok());
}

TEST_P(EngineTest, ACancelledSequenceIsInNoLaterStep) {
  Make();
  ASSERT_TRUE(engine_->Submit({Spec(1, 3, 100), Spec(2, 3, 4)}).ok());
  engine_->RunStep();
  engine_->RunStep();
  const std::size_t before = outcomes_[1].tokens.size();
  engine_->Cancel({1}, FinishReason::kCancelled);
  RunUntilIdle();
  EXPECT_EQ(outcomes_[1].finish, FinishReason::kCancelled);
  EXPECT_LE(outcomes_[1].tokens.size(), before + 1);
  EXPECT_EQ(outcomes_[2].finish, FinishReason::kLength);
}

TEST_P(EngineTest, AFailedSequenceLeavesTheOthersAlone) {
  Make();
  model_->FailSequence(1, absl::InternalError("layer 3: logits are not finite"));
  ASSERT_TRUE(engine_->Submit({Spec(1, 3, 5), Spec(2, 3, 5)}).ok());
  RunUntilIdle();
  EXPECT_EQ(outcomes_[1].finish, FinishReason::kError);
  EXPECT_EQ(outcomes_[1].error.message(), "layer 3: logits are not finite");
  EXPECT_EQ(outcomes_[2].finish, FinishReason::kLength);
}

TEST_P(EngineTest, AFailedStepEndsItsSequencesAndTheNextOneRuns) {
  Make();
  model_->FailNextStep(absl::ResourceExhaustedError("out of memory"));
  ASSERT_TRUE(engine_->Submit({Spec(1, 3, 5)}).ok());
  RunUntilIdle();
  EXPECT_EQ(outcomes_[1].error.code(), absl::StatusCode::kResourceExhausted);
  ASSERT_TRUE(engine_->Submit({Spec(2, 3, 5)}).ok());
  RunUntilIdle();
  EXPECT_EQ(outcomes_[2].finish, FinishReason::kLength);
  EXPECT_TRUE(lost_.ok());
}

TEST_P(EngineTest, ALostDeviceEndsEverythingAndRefusesMore) {
  Make();
  ASSERT_TRUE(engine_->Submit({Spec(1, 3, 5), Spec(2, 3, 5)}).ok());
  engine_->RunStep();
  model_->FailNextStep(
      absl::UnavailableError("CUDA error: an illegal memory access was encountered"));
  RunUntilIdle();
  EXPECT_EQ(lost_.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(times_lost_, 1);
  for (const SequenceId id : {1, 2}) {
    EXPECT_EQ(outcomes_[id].endings, 1);
    ASSERT_EQ(outcomes_[id].error.code(), absl::StatusCode::kUnavailable);
    ASSERT_TRUE(GetErrorDetail(outcomes_[id].error).has_value()) << outcomes_[id].error;
    EXPECT_EQ(GetErrorDetail(outcomes_[id].error)->reason, "DEVICE_LOST");
  }
  EXPECT_EQ(engine_->Submit({Spec(3, 3, 5)}).code(), absl::StatusCode::kUnavailable);
}

TEST_P(EngineTest, TellsTelemetryOfEveryStepAndGap) {
  Make();
  ASSERT_TRUE(engine_->Submit({Spec(1, 6, 4)}).ok());
  RunUntilIdle();
  const std::vector<StepEvent> steps = telemetry_.steps();
  ASSERT_THAT(steps, Not(IsEmpty()));
  EXPECT_EQ(steps.front().phase, StepPhase::kPrefill);
  EXPECT_EQ(steps.front().rows, 6);
  EXPECT_EQ(steps.back().phase, StepPhase::kDecode);
  std::int64_t rows = 0;
  std::size_t gaps = 0;
  for (const StepEvent& step : steps) {
    for (const RouterStepShare& share : step.routers) rows += share.rows;
    gaps += step.gaps.size();
  }
  EXPECT_EQ(rows, 6 + 3);  // the last token is never computed
  EXPECT_EQ(gaps, 3u);
  EXPECT_EQ(telemetry_.load().running, 0);
}

TEST_P(EngineTest, ItsThreadWakesForNewWork) {
  Make();
  engine_->Start();
  ASSERT_TRUE(engine_->Submit({Spec(1, 3, 5)}).ok());
  while (engine_->Load().running + engine_->Load().waiting > 0 || telemetry_.steps().size() < 5) {
    std::this_thread::yield();
  }
  engine_->Stop();
  EXPECT_EQ(outcomes_[1].endings, 1);
  EXPECT_EQ(engine_->Submit({Spec(2, 3, 5)}).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace penstock
