// What Create and Enqueue accept, and in which order waiting sequences run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>

#include "server/base/error.h"
#include "tests/server/scheduler/harness.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct BadOption {
  std::string name;
  std::function<void(Scheduler::Options*)> spoil;
  std::string message;
};

class SchedulerOptionsTest : public ::testing::TestWithParam<BadOption> {};

TEST_P(SchedulerOptionsTest, NamesTheOptionAndItsValue) {
  Scheduler::Options options = SmallOptions();
  GetParam().spoil(&options);
  const auto scheduler = Scheduler::Create(options);
  EXPECT_EQ(scheduler.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(scheduler.status().message(), GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    Bad, SchedulerOptionsTest,
    ::testing::Values(
        BadOption{"batch", [](auto* o) { o->max_batch = 0; }, "max_batch: got 0, want at least 1"},
        BadOption{"budget", [](auto* o) { o->token_budget = 3; },
                  "token_budget: got 3, want at least max_batch (4)"},
        BadOption{"chunk", [](auto* o) { o->prefill_chunk = 0; },
                  "prefill_chunk: got 0, want at least 1"},
        BadOption{"queue", [](auto* o) { o->max_queue = 0; }, "max_queue: got 0, want at least 1"},
        BadOption{"block", [](auto* o) { o->block_tokens = 0; },
                  "block_tokens: got 0, want at least 1"},
        BadOption{"blocks", [](auto* o) { o->num_blocks = 0; },
                  "num_blocks: got 0, want 1 to 2147483647"},
        BadOption{"uncommitted", [](auto* o) { o->max_uncommitted = 5; },
                  "max_uncommitted: got 5, want 1 to 4"},
        BadOption{"aging", [](auto* o) { o->priority_aging = absl::ZeroDuration(); },
                  "priority_aging: got 0, want above 0"},
        BadOption{"weight", [](auto* o) { o->tenant_weights["acme"] = 0; },
                  "tenant_weights[acme]: got 0, want a finite number above 0"},
        BadOption{
            "nan",
            [](auto* o) { o->tenant_weights["acme"] = std::numeric_limits<double>::quiet_NaN(); },
            "tenant_weights[acme]: got nan, want a finite number above 0"}),
    [](const auto& info) { return info.param.name; });

struct BadSequence {
  std::string name;
  std::function<void(SequenceSpec*)> spoil;
  std::string field;
  std::string message;
};

class SequenceSpecTest : public ::testing::TestWithParam<BadSequence> {};

TEST_P(SequenceSpecTest, IsRefusedNamingFieldAndValue) {
  Harness harness(SmallOptions());
  SequenceSpec spec = harness.Spec(Prompt(3), 5);
  GetParam().spoil(&spec);
  const absl::Status status = harness.scheduler().Enqueue(spec, harness.now);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), GetParam().message);
  ASSERT_TRUE(GetErrorDetail(status).has_value());
  EXPECT_EQ(GetErrorDetail(status)->field, GetParam().field);
  EXPECT_TRUE(harness.scheduler().Idle());
}

INSTANTIATE_TEST_SUITE_P(
    Bad, SequenceSpecTest,
    ::testing::Values(
        BadSequence{"router", [](auto* s) { s->router = nullptr; }, "router",
                    "router: got none, want a loaded router"},
        BadSequence{"empty", [](auto* s) { s->prompt.clear(); }, "prompt",
                    "prompt: got 0 tokens, want at least 1"},
        BadSequence{"token", [](auto* s) { s->prompt[1] = kTokenOfPreviousStep; }, "prompt[1]",
                    "prompt[1]: got -1, want a token id of at least 0"},
        BadSequence{"priority", [](auto* s) { s->priority = 10; }, "priority",
                    "priority: got 10, want 0 to 9"},
        BadSequence{"negative", [](auto* s) { s->stopping.max_new_tokens = -1; },
                    "stopping.max_new_tokens", "stopping.max_new_tokens: got -1, want at least 0"},
        BadSequence{"long", [](auto* s) { s->stopping.max_new_tokens = 255; },
                    "stopping.max_new_tokens",
                    "stopping.max_new_tokens: got 255, want with a prompt of 3 tokens at most 256 "
                    "positions, the "
                    "KV cache's size"},
        BadSequence{
            "overflow",
            [](auto* s) { s->stopping.max_new_tokens = std::numeric_limits<int>::max(); },
            "stopping.max_new_tokens",
            "stopping.max_new_tokens: got 2147483647, want with a prompt of 3 tokens at most 256 "
            "positions, the KV cache's size"}),
    [](const auto& info) { return info.param.name; });

TEST(AdmissionTest, ASequenceThatJustFitsThePoolRunsToItsEnd) {
  Harness harness(SmallOptions());
  const SequenceId id = harness.Add(Prompt(3), 254);  // its last token needs no position
  harness.StepUntilIdle();
  EXPECT_EQ(harness.Tokens(id).size(), 254u);
  EXPECT_EQ(harness.Last(id).finish, FinishReason::kLength);
}

TEST(AdmissionTest, RefusesAnIdThatIsLiveAndTakesItAgainAfterItsEnd) {
  Harness harness(SmallOptions());
  const SequenceSpec spec = harness.Spec(Prompt(3), 2);
  harness.Add(spec);
  EXPECT_EQ(harness.scheduler().Enqueue(spec, harness.now).code(),
            absl::StatusCode::kAlreadyExists);
  harness.scheduler().Cancel(spec.id);
  EXPECT_TRUE(harness.scheduler().Enqueue(spec, harness.now).ok());
}

TEST(AdmissionTest, RefusesADeadlineThatIsPast) {
  Harness harness(SmallOptions());
  SequenceSpec spec = harness.Spec(Prompt(3), 2);
  spec.deadline = harness.now;
  EXPECT_EQ(harness.scheduler().Enqueue(spec, harness.now).code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(AdmissionTest, RefusesWithARetryDelayWhenTheQueueIsFull) {
  Scheduler::Options options = SmallOptions();
  options.max_queue = 2;
  Harness harness(options);
  harness.Add(Prompt(3), 2);
  harness.Add(Prompt(3), 2);
  const absl::Status status = harness.scheduler().Enqueue(harness.Spec(Prompt(3), 2), harness.now);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("2 sequences wait, limit 2"));
  ASSERT_TRUE(GetErrorDetail(status).has_value());
  EXPECT_EQ(GetErrorDetail(status)->reason, "QUEUE_FULL");
  EXPECT_EQ(GetErrorDetail(status)->retry_after, absl::Seconds(1));
  harness.Step();  // both run now: there is room again
  EXPECT_TRUE(harness.scheduler().Enqueue(harness.Spec(Prompt(3), 2), harness.now).ok());
}

TEST(AdmissionTest, AsksToComeBackLaterWhenAdmissionIsSlow) {
  Scheduler::Options options = SmallOptions();
  options.max_batch = 1;
  options.max_queue = 16;
  Harness harness(options);
  for (int i = 0; i < 16; ++i) harness.Add(Prompt(3), 1);
  for (int i = 0; i < 16; ++i) {
    harness.Step();
    harness.now += absl::Seconds(10);
    harness.Add(Prompt(3), 1);
  }
  const absl::Status status = harness.scheduler().Enqueue(harness.Spec(Prompt(3), 1), harness.now);
  ASSERT_TRUE(GetErrorDetail(status).has_value());
  EXPECT_GT(GetErrorDetail(status)->retry_after, absl::Seconds(5));
  EXPECT_LE(GetErrorDetail(status)->retry_after, absl::Seconds(20));
}

TEST(AdmissionTest, TakesHigherPrioritiesFirstAndThenInOrderOfArrival) {
  Scheduler::Options options = SmallOptions();
  options.max_batch = 1;
  Harness harness(options);
  std::vector<SequenceId> order;
  for (const int priority : {5, 3, 9, 5, 9}) {
    SequenceSpec spec = harness.Spec(Prompt(3), 1);
    spec.priority = priority;
    harness.Add(spec);
  }
  harness.StepUntilIdle();
  for (const SequenceEvent& event : harness.events) order.push_back(event.id);
  EXPECT_THAT(order, ElementsAre(3, 5, 1, 4, 2));
}

TEST(AdmissionTest, NoSequenceStarvesBehindAnEndlessStreamOfHigherPriority) {
  Scheduler::Options options = SmallOptions();
  options.max_batch = 1;
  options.priority_aging = absl::Seconds(10);
  Harness harness(options);
  SequenceSpec low = harness.Spec(Prompt(3), 1);
  low.priority = 0;
  harness.Add(low);
  int overtaken = 0;
  while (!harness.Last(low.id).finish) {
    SequenceSpec high = harness.Spec(Prompt(3), 1);
    high.priority = 9;
    harness.Add(high);
    harness.Step();
    harness.now += absl::Seconds(1);
    ASSERT_LT(++overtaken, 200);
  }
  // Nine steps of ten seconds to the top, where it is the oldest.
  EXPECT_GE(overtaken, 90);
  EXPECT_LE(overtaken, 92);
}

TEST(AdmissionTest, WithoutAgingHigherPrioritiesAlwaysGoFirst) {
  Scheduler::Options options = SmallOptions();
  options.max_batch = 1;
  options.priority_aging = absl::InfiniteDuration();
  Harness harness(options);
  SequenceSpec low = harness.Spec(Prompt(3), 1);
  low.priority = 0;
  harness.Add(low);
  for (int i = 0; i < 100; ++i) {
    SequenceSpec high = harness.Spec(Prompt(3), 1);
    high.priority = 1;
    harness.Add(high);
    harness.now += absl::Hours(1);
    EXPECT_THAT(IdsOf(harness.Step()), ElementsAre(high.id));
  }
}

TEST(AdmissionTest, ALargeSequenceIsNotOvertakenWhileItWaitsForBlocks) {
  Scheduler::Options options = SmallOptions();
  options.num_blocks = 10;
  Harness harness(options);
  const SequenceId running = harness.Add(Prompt(8), 9);
  harness.Step();
  const SequenceId large = harness.Add(Prompt(32, 200), 1), small = harness.Add(Prompt(2, 300), 1);
  harness.StepUntil([&] {
    EXPECT_THAT(harness.Tokens(large), IsEmpty());
    EXPECT_THAT(harness.Tokens(small), IsEmpty());
    return harness.Last(running).finish.has_value();
  });
  EXPECT_THAT(IdsOf(harness.Step()), ElementsAre(large, small));
}

TEST(AdmissionTest, AdmissionLeavesAHundredthOfTheBlocksToRunningSequences) {
  Scheduler::Options options = SmallOptions();
  options.num_blocks = 100;
  Harness harness(options);
  const SequenceId first = harness.Add(Prompt(2), 30);
  harness.Step();
  harness.Add(Prompt(99 * 4 - 3, 200), 1);  // 99 blocks: all but the one that the first holds
  EXPECT_THAT(IdsOf(harness.Step()), ElementsAre(first));
}

TEST(AdmissionTest, NothingRunsAndNothingIsPlannedWhenIdle) {
  Harness harness(SmallOptions());
  EXPECT_TRUE(harness.scheduler().Idle());
  EXPECT_EQ(harness.Step().number, 0u);
  EXPECT_THAT(harness.events, IsEmpty());
}

}  // namespace
}  // namespace penstock
