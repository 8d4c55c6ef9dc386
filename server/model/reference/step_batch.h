// A step's rows, arranged for the forward pass.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "server/scheduler/loaded_router.h"
#include "server/scheduler/step_plan.h"

namespace penstock {

// The rows of one router: those that it serves, or that it is asked about as a shadow.
struct RouterRows {
  std::shared_ptr<const LoadedRouter> router;
  std::vector<std::int32_t> rows;  // ascending
  std::int64_t counted_rows = 0;   // of these, not computed before a preemption
};

struct StepBatch {
  const StepPlan* plan = nullptr;
  std::int64_t rows = 0;
  std::vector<std::int32_t> tokens;     // [rows]
  std::vector<std::int32_t> positions;  // [rows]
  std::vector<std::int32_t> blocks;     // [rows]: the KV block that holds the row's position
  std::vector<std::int32_t> offsets;    // [rows]: and the place within it
  std::vector<std::int32_t> sequences;  // [rows]: index in plan->sequences
  std::vector<char> counted;            // [rows]: not computed before a preemption
  std::vector<RouterRows> routers;      // in order of first row
  // Of each of the plan's shadows the counted rows that no router of its name serves; those without
  // any are left out.
  std::vector<RouterRows> shadows;
};

// `plan` must outlive the result. Tokens, positions and blocks are checked against the bounds: a
// plan that breaks them is a bug, and ends the process.
StepBatch ArrangeStep(const StepPlan& plan, std::int64_t vocab_size, std::int64_t block_tokens,
                      std::int64_t num_blocks);

}  // namespace penstock
