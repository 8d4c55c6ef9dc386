// How PlanAttention lays out what it finds, for the kernels that read it.
#pragma once

#include <cstdint>

#include "kernels/device_attention.h"

namespace penstock {

// Softmax is taken by powers of two.
inline constexpr float kLog2E = 1.44269504088896340736f;

// A piece of prefill: rows of one sequence, and the position of the first.
struct alignas(16) PrefillTile {
  std::int32_t first_row, num_rows, position, sequence;
};

struct AttentionPlanLayout {
  std::int32_t* decode_rows;    // [1]
  std::int32_t* prefill_tiles;  // [1]
  std::int32_t* decode_splits;  // [1]: of all decode rows
  std::int32_t* split_starts;   // [max_rows + 1]: splits of the decode rows before each
  PrefillTile* tiles;           // [max_rows]

  __host__ __device__ explicit AttentionPlanLayout(const AttentionPlan& plan)
      : decode_rows(static_cast<std::int32_t*>(plan.memory)),
        prefill_tiles(decode_rows + 1),
        decode_splits(decode_rows + 2),
        split_starts(decode_rows + 4),
        tiles(reinterpret_cast<PrefillTile*>(split_starts + (plan.max_rows + 4) / 4 * 4)) {}
};

}  // namespace penstock
