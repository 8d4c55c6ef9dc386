// Writes a planned step into the arrays that the device reads.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "server/model/cuda/step/router_slots.h"
#include "server/model/cuda/step/step_arrays.h"
#include "server/model/model.h"
#include "server/scheduler/step_plan.h"

namespace penstock {

// One row of logits: whose it is, and what for.
struct LogitRow {
  std::size_t sequence = 0;  // index in the plan
  int row = 0;
  bool samples = false;   // else: the score of the prompt's next token
  std::size_t place = 0;  // in prompt_scores
};

// What the host remembers of a step until its results are there.
struct WrittenStep {
  std::vector<absl::Status>
      status;  // [sequences]: not OK: the step computes its rows, and drops them
  std::vector<LogitRow> logit_rows;
  struct RouterShare {
    int slot = 0;
    std::string router;
    std::int64_t counted_rows = 0;
  };
  std::vector<RouterShare> routers;  // in order of first row
  bool wants_top = false, wants_traces = false;
  std::int64_t table_entries = 0;  // of the block tables
  int list_entries = 0;            // of bias and ban lists
  // Histories to bring to the device before the step: slot and tokens (prompt, then output).
  std::vector<std::pair<int, std::vector<std::int32_t>>> histories;
};

// Host memory that the arrays are written to; sized for the options' bounds.
struct StepTarget {
  StepInputs inputs;
  std::int32_t* bias_tokens = nullptr;  // [max_token_lists]
  float* biases = nullptr;              // [max_token_lists]
  std::int32_t* banned = nullptr;       // [max_token_lists]
};

struct StepWriterOptions {
  int vocab_size = 0, block_tokens = 0, max_context = 0, max_sequences = 0, max_top = 0,
      max_token_lists = 0;
  std::int64_t num_blocks = 0;
};

// Sees every step in order: which of its tokens come of the step before, and which sequences'
// histories the device has. A plan that breaks the bounds is a bug, and ends the process.
class StepWriter {
 public:
  StepWriter(StepWriterOptions options, RouterSlots* routers);

  // Rows whose logits the plan wants, in order of row.
  std::vector<LogitRow> LogitRows(const StepPlan& plan) const;

  // `target.inputs` is laid out for at least the plan's rows and its logit rows. Rows beyond are
  // padding, and are not written.
  WrittenStep Write(const StepPlan& plan, std::vector<LogitRow> logit_rows,
                    const StepTarget& target);

 private:
  void WriteRows(const StepPlan& plan, const StepTarget& target, WrittenStep& step);
  void WriteSamples(const StepPlan& plan, const StepTarget& target, WrittenStep& step);
  // Slot of the sequence's history, brought up to date; −1: no penalty asks for one.
  int HistoryOf(const PlannedSequence& planned, std::uint64_t number, WrittenStep& step);

  const StepWriterOptions options_;
  RouterSlots* const routers_;
  absl::flat_hash_map<SequenceId, std::int32_t> sampled_;  // logit row in the step before
  struct History {
    int slot = 0;
    std::uint64_t last_step = 0;
  };
  absl::flat_hash_map<SequenceId, History> histories_;
  std::vector<int> free_histories_;
};

}  // namespace penstock
