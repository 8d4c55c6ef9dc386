// Causal attention over a KV cache of fixed-size blocks (Kwon et al., arXiv 2309.06180), with the
// online softmax of Milakov & Gimelshein (arXiv 1805.02867).
#pragma once

#include <cstdint>

#include "kernels/element.h"

namespace penstock {

// Where keys and values stand in one layer's cache, in elements. Keys lie with a block's positions
// side by side, so that scores of neighbouring positions are computed together; values with the
// head's dimensions side by side.
struct KvLayout {
  Element element = Element::kF32;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  std::int64_t block_tokens = 0;  // positions of a block

  static constexpr std::int64_t kAlign = 16;
  static constexpr std::int64_t Padded(std::int64_t n) {
    return (n + kAlign - 1) / kAlign * kAlign;
  }
  std::int64_t key_stride() const { return Padded(block_tokens); }  // between dimensions
  std::int64_t value_stride() const { return Padded(head_dim); }    // between positions
  std::int64_t key_head() const { return head_dim * key_stride(); }
  std::int64_t value_head() const { return block_tokens * value_stride(); }
  std::int64_t key_block() const {
    return kv_heads * key_head();
  }  // [kv_heads, head_dim, key_stride]
  std::int64_t value_block() const {
    return kv_heads * value_head();
  }  // [kv_heads, block_tokens, value_stride]
};

struct KvAppendArgs {
  KvLayout layout;
  const void* k = nullptr;                // [rows, kv_heads, head_dim], rotated
  const void* v = nullptr;                // [rows, kv_heads, head_dim]
  const std::int32_t* blocks = nullptr;   // [rows]: the block that holds the row's position
  const std::int32_t* offsets = nullptr;  // [rows]: the place within it
  void* keys = nullptr;                   // [blocks, key_block]
  void* values = nullptr;                 // [blocks, value_block]
};

// Writes rows first … last − 1 into the cache.
void KvAppendCpu(const KvAppendArgs& args, std::int64_t first, std::int64_t last);

struct PagedAttentionArgs {
  KvLayout layout;
  const void* q = nullptr;  // [rows, heads, head_dim], rotated
  void* y = nullptr;        // [rows, heads, head_dim], out
  std::int64_t heads =
      0;            // multiple of kv_heads: query head h reads KV head h / (heads / kv_heads)
  float scale = 1;  // of the scores
  const void* keys = nullptr;                 // [blocks, key_block]
  const void* values = nullptr;               // [blocks, value_block]
  const std::int32_t* block_table = nullptr;  // of the rows' sequence
  std::int64_t first_position = 0;            // of row 0; row r stands at first_position + r
};

// Bytes of scratch that one call with `rows` rows needs.
std::int64_t PagedAttentionScratch(const PagedAttentionArgs& args, std::int64_t rows);

// Rows first … last − 1 of one sequence, one KV head with all its query heads; each row attends to
// positions 0 up to its own. Positions are taken in fixed tiles counted from 0, in fp32, one
// rounding at the end: a row's result does not depend on the rows beside it, on how prompts are cut
// into chunks, or on which blocks hold them. `scratch` is aligned to 64 bytes.
void PagedAttentionCpu(const PagedAttentionArgs& args, std::int64_t kv_head, std::int64_t first,
                       std::int64_t last, void* scratch);

}  // namespace penstock
