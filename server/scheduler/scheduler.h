// Decides which rows the next step computes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/scheduler/step_plan.h"

namespace penstock {

// What the scheduler is doing now.
struct SchedulerLoad {
  int running = 0;
  int waiting = 0;
  int background = 0;  // background sequences, in neither of the two above
  std::int64_t blocks_free = 0, blocks_active = 0, blocks_cached = 0;
  std::int64_t preemptions = 0;  // since start
  // Planned since start, recomputed ones included.
  std::int64_t traffic_rows = 0, background_rows = 0;
};

// Continuous batching over a pool of KV blocks: running sequences decode one row a step, and what
// is left of the step's token budget goes to prompts, in chunks. Waiting sequences are taken by
// priority, then from the tenant that has been served least for its weight (a virtual token
// counter: Sheng et al., arXiv 2401.00588; a prompt token that is computed counts 1, an output
// token 2), then in order of arrival. A waiting sequence's priority rises with time, so that none
// starves behind higher ones. One that does not fit the free blocks is not overtaken: the running
// ones end, and it fits. When blocks run out, the youngest running sequence of the lowest priority
// (the one it was admitted with) loses its blocks and is computed again later, ahead of its class;
// what it has answered so far stays. Background sequences (SequenceSpec::background) get rows that
// the others leave, and lose place and blocks to any that wants them. Not thread-safe: the engine
// thread owns it.
class Scheduler {
 public:
  struct Options {
    int max_batch = 256;  // running sequences
    // Rows of a step; at least max_batch, so that no running sequence waits for a row.
    int token_budget = 2048;
    int prefill_chunk = 2048;     // rows of one sequence's prompt in a step
    int max_queue = 1024;         // waiting sequences, over all tenants; preempted ones come on top
    int block_tokens = 16;        // positions of a block
    std::int64_t num_blocks = 0;  // of the pool
    // Most rows of background sequences in a step beside others: they get as many as those have,
    // or 8. In a step of their own kBackgroundAlone times this, at most prefill_chunk: what arrives
    // meanwhile waits for it.
    int background_rows = 32;
    static constexpr int kBackgroundAlone = 8;
    bool prefix_cache = true;
    bool share_cache_across_tenants = false;
    // Steps that may be planned but not committed, 1–4. 2: a step is planned while the one before
    // it still runs; the rows that follow a token not yet known carry kTokenOfPreviousStep. The
    // model runs steps in order: a step may write to blocks that the one before it still reads.
    int max_uncommitted = 1;
    std::map<std::string, double> tenant_weights;  // absent: 1
    // A waiting sequence's priority rises by one each time it has waited this long, up to 9.
    // Infinite: never, and high priorities may starve low ones.
    absl::Duration priority_aging = absl::Seconds(10);
  };

  // INVALID_ARGUMENT naming the option and the value that is out of range.
  static absl::StatusOr<std::unique_ptr<Scheduler>> Create(const Options& options);
  ~Scheduler();

  // Takes a sequence. It is consumed, and will end with exactly one finishing event, iff the result
  // is OK. RESOURCE_EXHAUSTED (reason QUEUE_FULL, with retry_after): the queue is full.
  // DEADLINE_EXCEEDED (reason DEADLINE_EXCEEDED): the deadline is past. INVALID_ARGUMENT, naming
  // the field: it could never fit the pool, its prompt is empty or holds a negative token, it has
  // no router, its priority or max_new_tokens is out of range. ALREADY_EXISTS: the id is live.
  absl::Status Enqueue(SequenceSpec spec, absl::Duration now);

  // Ends a live sequence: it is in no later plan, and its event says kCancelled, or kStop for one
  // whose text met a stop string (any other reason the caller gives is passed on). It ends at the
  // time of the last call that said `now`. An unknown or ended id is ignored: the race is the
  // caller's normal case.
  void Cancel(SequenceId id, FinishReason reason = FinishReason::kCancelled);

  // The next step's rows; nullopt when nothing can run now, or max_uncommitted plans are not
  // committed yet. Sequences past their deadline end here. `now` is Clock::Monotonic. Linear in the
  // sequences and rows of the plan, beside one look at the first waiting sequence of each tenant
  // and priority per admission.
  std::optional<StepPlan> PlanStep(absl::Duration now);

  // Takes the result of the oldest uncommitted plan, one entry per planned sequence. Afterwards
  // TakeEvents has what came of it. Results of sequences that ended since they were planned are
  // dropped.
  void CommitStep(const StepPlan& plan, const StepResult& result, absl::Duration now);

  // The events since the last call, in order.
  std::vector<SequenceEvent> TakeEvents();

  // True when no sequence is live.
  bool Idle() const;
  SchedulerLoad Load() const;

  // Replaces the tenants' weights, from the next plan on. INVALID_ARGUMENT naming the first that is
  // not finite and above zero: nothing changed.
  absl::Status SetTenantWeights(std::map<std::string, double> weights);

  // For tests: goes over all blocks and sequences. INTERNAL, with the first broken invariant: a
  // block whose holders are not the tables it stands in, a free or cached one in a table, a count
  // that is off.
  absl::Status Audit() const;

 private:
  class State;
  explicit Scheduler(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace penstock
