// A device for the scheduler's tests: KV slots that remember what was written to them, and a model
// whose next token is a hash of the router and of all tokens so far.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "server/scheduler/scheduler.h"
#include "server/scheduler/step_plan.h"

namespace penstock {

// Tells sequences apart for good, where ids are used again: tests put a unique number into the
// seed.
inline std::uint64_t SerialOf(const SequenceSpec& spec) { return spec.sampling.seed; }

// What one sequence answers when it runs alone.
struct LoneAnswer {
  std::vector<TokenId> output;
  FinishReason finish = FinishReason::kLength;
  TokenId stop_token = -1;
};
LoneAnswer RunAlone(const SequenceSpec& spec, int vocabulary);

// Runs plans in the order in which they were made, as a device does, and judges each: every row
// must find, at every position before its own, the KV of its own tokens under its own router, of
// its own tenant and salt, and of its own making if it is to use no cache; it must be given the
// right token; and nobody else may read the block it writes to.
class SimulatedDevice {
 public:
  SimulatedDevice(const Scheduler::Options& options, int vocabulary);

  // Runs a plan. What is wrong with it is added to violations().
  StepResult Run(const StepPlan& plan);

  const std::vector<std::string>& violations() const { return violations_; }
  std::int64_t reused_positions() const { return reused_; }          // found in the cache
  std::int64_t recomputed_positions() const { return recomputed_; }  // after preemptions

 private:
  struct Slot {
    std::uint64_t prefix = 0;  // hash of router and tokens up to here; 0: nothing was written
    std::uint64_t scope = 0;   // of whom may read it
    std::uint64_t writer = 0;
    bool bypass = false;
  };
  // The tokens of a sequence and the hashes of its prefixes, as far as they exist.
  struct History {
    std::vector<TokenId> tokens;
    std::vector<std::uint64_t> prefixes;
    std::vector<int> computed;  // by position: times
    std::uint64_t last_sampled_in = 0;
    bool started = false;
  };

  History& HistoryOf(const SequenceSpec& spec);
  void CheckShape(const StepPlan& plan);
  void CheckReads(const PlannedSequence& planned, const History& history);
  SequenceResult RunSequence(const StepPlan& plan, const PlannedSequence& planned);
  Slot& SlotOf(const PlannedSequence& planned, int position);

  template <typename... Values>
  void Violate(const Values&... values);

  const Scheduler::Options options_;
  const int vocabulary_;
  std::vector<Slot> slots_;  // [num_blocks · block_tokens]
  absl::flat_hash_map<std::uint64_t, History> histories_;
  std::uint64_t last_number_ = 0;
  std::int64_t reused_ = 0, recomputed_ = 0;
  std::vector<std::string> violations_;
};

}  // namespace penstock
