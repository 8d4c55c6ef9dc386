// The device's KV cache of one layer, and which rows and blocks belong together. A block keeps the
// keys and values of one head side by side, so that one copy brings both.
#pragma once

#include <cstdint>

namespace penstock {

struct KvBlocks {
  void* cache = nullptr;  // [num_blocks, kv_heads, 2 (keys, values), block_tokens, head_dim] bf16
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;      // 64 or 128
  std::int64_t block_tokens = 0;  // 16

  // Elements from the cache's start to the keys of one head of one block; its values follow.
  constexpr std::int64_t Offset(std::int64_t block, std::int64_t kv_head) const {
    return (block * kv_heads + kv_head) * 2 * block_tokens * head_dim;
  }
};

// A step's rows by sequence: rows of one sequence are neighbours, at rising positions. Device
// pointers, the same for all layers.
struct StepRows {
  const std::int32_t* num_rows = nullptr;      // [1]; rows from here on are padding
  std::int64_t max_rows = 0;                   // of the launch
  const std::int32_t* positions = nullptr;     // [rows]
  const std::int32_t* sequences = nullptr;     // [rows]: index of the row's block table
  const std::int32_t* block_tables = nullptr;  // [sequences, max_blocks]
  std::int64_t max_blocks = 0;                 // of a sequence
};

}  // namespace penstock
