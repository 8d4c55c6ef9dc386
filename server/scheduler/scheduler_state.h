// What Scheduler holds. Its methods: admission and ends in scheduler.cc, planning in plan_step.cc,
// results in commit_step.cc, invariants in audit.cc.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/kvcache/block_pool.h"
#include "server/kvcache/prefix_index.h"
#include "server/kvcache/prefix_key.h"
#include "server/scheduler/fair_share.h"
#include "server/scheduler/scheduler.h"
#include "server/scheduler/sequence_state.h"
#include "server/scheduler/waiting_queue.h"

namespace penstock {

class Scheduler::State {
 public:
  explicit State(const Options& options);

  absl::Status Enqueue(SequenceSpec spec, absl::Duration now);
  void Cancel(SequenceId id, FinishReason reason);
  std::optional<StepPlan> PlanStep(absl::Duration now);
  void CommitStep(const StepPlan& plan, const StepResult& result, absl::Duration now);
  std::vector<SequenceEvent> TakeEvents() { return std::exchange(events_, {}); }
  bool Idle() const { return live_.empty(); }
  SchedulerLoad Load() const;
  void SetTenantWeights(std::map<std::string, double> weights);
  absl::Status Audit() const;

 private:
  // A planned sequence, until its step is committed. It outlives the sequence's end.
  struct Planned {
    std::shared_ptr<Sequence> sequence;
    int residence = 0;
    int first_position = 0, num_rows = 0, first_new_position = 0;
    bool samples = false;
  };
  struct Uncommitted {
    std::uint64_t number = 0;
    std::vector<Planned> sequences;
  };
  // The victim of a preemption is the last one.
  struct RunningOrder {
    bool operator()(const Sequence* a, const Sequence* b) const {
      return std::tuple(-a->running_priority, a->arrival) <
             std::tuple(-b->running_priority, b->arrival);
    }
  };

  absl::Status Validate(const SequenceSpec& spec) const;
  absl::Duration RetryAfter() const;
  void Observe(absl::Duration now) { now_ = std::max(now_, now); }
  int BlocksFor(std::int64_t positions) const;

  // Ends a live sequence: gives its blocks back, adds its last event.
  void End(const std::shared_ptr<Sequence>& sequence, FinishReason reason, SequenceEvent event);

  void EndPastDeadline();
  void PlanDecode(StepPlan* plan);
  void PlanPrefill(StepPlan* plan);
  void PlanWaiting(StepPlan* plan);
  void PlanBackground(StepPlan* plan);
  void PlanRows(Sequence* sequence, int rows, StepPlan* plan);
  bool Admit(Sequence* sequence);
  void Preempt(Sequence* sequence);
  // Preempts a running background sequence without rows in the plan being made. False: none runs.
  bool PreemptBackground();

  void CommitSequence(const Planned& planned, const SequenceResult& result);
  void OfferToCache(Sequence* sequence);

  const Options options_;
  BlockPool pool_;
  PrefixIndex index_;
  PrefixHasher hasher_;
  FairShare shares_;
  WaitingQueue waiting_;
  std::set<Sequence*, RunningOrder> running_;
  absl::flat_hash_map<SequenceId, std::shared_ptr<Sequence>> live_;
  std::map<std::pair<absl::Duration, std::uint64_t>, SequenceId>
      deadlines_;                        // (deadline, arrival), finite ones
  std::deque<Uncommitted> uncommitted_;  // oldest first
  std::vector<SequenceEvent> events_;
  absl::Duration now_ = -absl::InfiniteDuration();
  std::uint64_t arrivals_ = 0, plans_ = 0;
  int background_running_ = 0, background_waiting_ = 0;
  std::int64_t traffic_rows_ = 0, background_rows_ = 0;
  std::int64_t preemptions_ = 0;
  absl::Duration last_admission_ = absl::InfiniteDuration();  // infinite: none yet
  absl::Duration admission_interval_;                         // smoothed
};

}  // namespace penstock
