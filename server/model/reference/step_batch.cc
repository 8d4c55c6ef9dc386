#include "server/model/reference/step_batch.h"

#include <algorithm>
#include <utility>

#include "server/base/check.h"

namespace penstock {
namespace {

RouterRows& RowsOf(StepBatch& batch, const std::shared_ptr<const LoadedRouter>& router) {
  const auto found = std::find_if(batch.routers.begin(), batch.routers.end(),
                                  [&](const RouterRows& rows) { return rows.router == router; });
  if (found != batch.routers.end()) return *found;
  batch.routers.push_back({.router = router, .rows = {}});
  return batch.routers.back();
}

void AddShadows(const StepPlan& plan, StepBatch& batch) {
  for (const std::shared_ptr<const LoadedRouter>& shadow : plan.shadows) {
    RouterRows rows{.router = shadow, .rows = {}};
    for (const PlannedSequence& planned : plan.sequences) {
      if (planned.spec->router->name == shadow->name) continue;
      for (std::int32_t row = planned.first_row; row < planned.first_row + planned.num_rows;
           ++row) {
        if (batch.counted[static_cast<std::size_t>(row)]) rows.rows.push_back(row);
      }
    }
    rows.counted_rows = static_cast<std::int64_t>(rows.rows.size());
    if (!rows.rows.empty()) batch.shadows.push_back(std::move(rows));
  }
}

}  // namespace

StepBatch ArrangeStep(const StepPlan& plan, std::int64_t vocab_size, std::int64_t block_tokens,
                      std::int64_t num_blocks) {
  StepBatch batch;
  batch.plan = &plan;
  batch.rows = plan.rows();
  const auto rows = static_cast<std::size_t>(batch.rows);
  PENSTOCK_CHECK_EQ(plan.positions.size(), rows);
  batch.tokens = plan.token_ids;
  batch.positions.assign(plan.positions.begin(), plan.positions.end());
  batch.blocks.resize(rows);
  batch.offsets.resize(rows);
  batch.sequences.resize(rows);
  batch.counted.resize(rows);
  std::size_t row = 0;
  for (std::size_t s = 0; s < plan.sequences.size(); ++s) {
    const PlannedSequence& planned = plan.sequences[s];
    PENSTOCK_CHECK_EQ(static_cast<std::size_t>(planned.first_row), row);
    RouterRows& router = RowsOf(batch, planned.spec->router);
    for (int i = 0; i < planned.num_rows; ++i, ++row) {
      const int position = planned.first_position + i;
      const std::size_t block = static_cast<std::size_t>(position / block_tokens);
      PENSTOCK_CHECK_EQ(plan.positions[row], position);
      PENSTOCK_CHECK(plan.token_ids[row] >= 0 && plan.token_ids[row] < vocab_size)
          << "token " << plan.token_ids[row] << " of " << vocab_size;
      PENSTOCK_CHECK_LT(block, planned.block_table.size());
      PENSTOCK_CHECK(planned.block_table[block] >= 0 && planned.block_table[block] < num_blocks)
          << "block " << planned.block_table[block] << " of " << num_blocks;
      batch.blocks[row] = planned.block_table[block];
      batch.offsets[row] = static_cast<std::int32_t>(position % block_tokens);
      batch.sequences[row] = static_cast<std::int32_t>(s);
      batch.counted[row] = position >= planned.first_new_position;
      router.rows.push_back(static_cast<std::int32_t>(row));
      router.counted_rows += batch.counted[row];
    }
  }
  PENSTOCK_CHECK_EQ(row, rows);
  AddShadows(plan, batch);
  return batch;
}

}  // namespace penstock
