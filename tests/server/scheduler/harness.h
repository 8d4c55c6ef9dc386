// A scheduler, a simulated device and a clock, stepped by hand.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/scheduler/scheduler.h"
#include "tests/server/scheduler/simulated_device.h"

namespace penstock {

inline std::shared_ptr<const LoadedRouter> MakeRouter(std::string name) {
  auto router = std::make_shared<LoadedRouter>();
  router->fingerprint = "fingerprint of " + name;
  router->name = std::move(name);
  return router;
}

// Tokens 100, 101, …: outside the vocabulary, so that no output looks like them.
inline std::vector<TokenId> Prompt(int length, TokenId first = 100) {
  std::vector<TokenId> tokens(length);
  for (int i = 0; i < length; ++i) tokens[i] = first + i;
  return tokens;
}

class Harness {
 public:
  static constexpr int kVocabulary = 50;
  static constexpr int kManySteps = 1000;

  explicit Harness(const Scheduler::Options& options)
      : scheduler_(Scheduler::Create(options).value()), device_(options, kVocabulary) {}

  // A sequence with the next id of 1, 2, …; its tenant is "acme".
  SequenceSpec Spec(std::vector<TokenId> prompt, int max_new_tokens) {
    SequenceSpec spec;
    spec.id = ++last_id_;
    spec.sampling.seed = spec.id;
    spec.tenant = "acme";
    spec.router = router_;
    spec.prompt = std::move(prompt);
    spec.stopping.max_new_tokens = max_new_tokens;
    return spec;
  }

  SequenceId Add(SequenceSpec spec) {
    const SequenceId id = spec.id;
    const absl::Status status = scheduler_->Enqueue(std::move(spec), now);
    EXPECT_TRUE(status.ok()) << status;
    return id;
  }
  SequenceId Add(std::vector<TokenId> prompt, int max_new_tokens) {
    return Add(Spec(std::move(prompt), max_new_tokens));
  }

  // Plans a step; an empty plan has number 0. The device runs it; Commit delivers what came of it.
  StepPlan Plan() {
    std::optional<StepPlan> plan = scheduler_->PlanStep(now);
    Audit();
    if (!plan) return {};
    planned_.emplace_back(*plan, device_.Run(*plan));
    for (const std::string& violation : device_.violations()) ADD_FAILURE() << violation;
    return *plan;
  }
  std::vector<SequenceEvent> Commit() {
    EXPECT_FALSE(planned_.empty());
    scheduler_->CommitStep(planned_.front().first, planned_.front().second, now);
    planned_.erase(planned_.begin());
    Audit();
    return scheduler_->TakeEvents();
  }

  // Plans and commits; the events are added to `events`.
  StepPlan Step() {
    StepPlan plan = Plan();
    if (plan.number > 0) Keep(Commit());
    Keep(scheduler_->TakeEvents());
    return plan;
  }
  // Steps until `done()`; the last plan.
  template <typename Done>
  StepPlan StepUntil(Done done) {
    StepPlan plan;
    for (int steps = 0; !done(); ++steps) {
      if (steps == kManySteps) {
        ADD_FAILURE() << "not done after " << steps << " steps";
        break;
      }
      plan = Step();
    }
    return plan;
  }
  void StepUntilIdle() {
    StepUntil([this] { return scheduler_->Idle(); });
  }
  void StepUntilEnd(SequenceId id) {
    StepUntil([this, id] { return Last(id).finish.has_value(); });
  }

  // The tokens of a sequence in `events`, and its last event; one without `finish` if it has not
  // ended.
  std::vector<TokenId> Tokens(SequenceId id) const {
    std::vector<TokenId> tokens;
    for (const SequenceEvent& event : events) {
      if (event.id != id) continue;
      for (const ScoredToken& token : event.tokens) tokens.push_back(token.token.token);
    }
    return tokens;
  }
  SequenceEvent Last(SequenceId id) const {
    SequenceEvent last;
    for (const SequenceEvent& event : events) {
      if (event.id == id) last = event;
    }
    return last;
  }

  StepResult* result_of_oldest() { return &planned_.front().second; }
  Scheduler& scheduler() { return *scheduler_; }
  const SimulatedDevice& device() const { return device_; }

  absl::Duration now = absl::Seconds(1000);
  std::vector<SequenceEvent> events;

 private:
  void Audit() { EXPECT_TRUE(scheduler_->Audit().ok()) << scheduler_->Audit(); }
  void Keep(std::vector<SequenceEvent> more) {
    for (SequenceEvent& event : more) events.push_back(std::move(event));
  }

  const std::shared_ptr<const LoadedRouter> router_ = MakeRouter("linear");
  std::unique_ptr<Scheduler> scheduler_;
  SimulatedDevice device_;
  std::vector<std::pair<StepPlan, StepResult>> planned_;
  SequenceId last_id_ = 0;
};

// The ids of a plan's sequences, in its order.
inline std::vector<SequenceId> IdsOf(const StepPlan& plan) {
  std::vector<SequenceId> ids;
  for (const PlannedSequence& planned : plan.sequences) ids.push_back(planned.id);
  return ids;
}

// A small pool of blocks of 4, batches of 4 sequences and 32 rows.
inline Scheduler::Options SmallOptions() {
  Scheduler::Options options;
  options.max_batch = 4;
  options.token_budget = 32;
  options.prefill_chunk = 16;
  options.max_queue = 64;
  options.block_tokens = 4;
  options.num_blocks = 64;
  return options;
}

}  // namespace penstock
