// One step: what the scheduler asks of the model, and what the model answers.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/scheduler/sequence.h"
#include "server/telemetry/events.h"

namespace penstock {

// The token id of a row whose value the previous, uncommitted step is still sampling: the model
// feeds it back itself.
inline constexpr TokenId kTokenOfPreviousStep = -1;

// One sequence's rows in a step: consecutive positions, consecutive rows.
struct PlannedSequence {
  SequenceId id = 0;
  std::shared_ptr<const SequenceSpec> spec;
  int first_row = 0;
  int num_rows = 0;
  int first_position = 0;
  // Rows at positions below this were computed before a preemption, or are no traffic
  // (SequenceSpec::background): they are left out of every count.
  int first_new_position = 0;
  bool samples = false;  // the last row's logits give the sequence's next token
  int num_output = 0;    // tokens sampled so far (the position of the draw), pending ones included
  std::vector<int> block_table;  // block ids that hold positions 0 … first_position + num_rows − 1
  // Output tokens so far, for the penalties; shorter than num_output by the pending ones. Valid
  // until CommitStep of this plan; CommitStep of an earlier one may append to it.
  const std::vector<TokenId>* output = nullptr;
};

struct StepPlan {
  std::uint64_t number = 0;  // counts from 1
  std::vector<PlannedSequence> sequences;
  std::vector<TokenId> token_ids;  // [rows]
  std::vector<int> positions;      // [rows]
  // The first rows, one a sequence: of running sequences whose prompt was complete before. The rest
  // is prefill, and what is computed again after a preemption.
  int decode_rows = 0;
  // Routers that are asked, beside the one that serves it, about every row of the step: what they
  // say is counted and changes nothing. Empty for most steps.
  std::vector<std::shared_ptr<const LoadedRouter>> shadows;

  int rows() const { return static_cast<int>(token_ids.size()); }
};

// The model's answer for one planned sequence, in the plan's order.
struct SequenceResult {
  absl::Status
      status;  // not OK: this sequence alone fails (a non-finite router logit, out of memory)
  std::optional<ScoredToken> sampled;  // iff `samples` and status is OK
  // Iff `prompt_logprobs`: for every row at a position p < prompt length − 1, in order, the score
  // of prompt[p + 1]. Here and in traces rows that are computed again are included: the scheduler
  // drops what it gave out before.
  std::vector<ScoredToken> prompt_scores;
  std::vector<RowTrace> traces;
};

struct StepResult {
  std::vector<SequenceResult> sequences;
  // Of this step's rows, and of earlier steps' that no result has told of yet.
  std::vector<RoutingCounts> routing;
  int routing_steps = 1;  // steps that `routing` covers; 0: a later result will tell of this one
  std::vector<RouterStepShare> routers;
  int expert_passes = 0;
  std::vector<ShadowCounts> shadows;  // iff the plan has shadows
  absl::Duration shadow_time;         // what they added to the step
};

}  // namespace penstock
