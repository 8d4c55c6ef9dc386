// How PagedAttentionCpu lays out its scratch. Internal to the kernel.
#pragma once

#include <cstdint>

#include "kernels/paged_attention.h"

namespace penstock {

struct AttentionScratch {
  // Positions that share one step of the online softmax: as many whole blocks as give about 64.
  static constexpr std::int64_t kTilePositions = 64;

  std::int64_t tile_blocks, tile_lanes;        // blocks of a tile, and their padded positions
  std::int64_t q, scores, sums, state, bytes;  // offsets in floats; bytes in all

  AttentionScratch(const PagedAttentionArgs& args, std::int64_t rows) {
    const KvLayout& layout = args.layout;
    const std::int64_t queries = rows * (args.heads / layout.kv_heads);
    tile_blocks = layout.block_tokens < kTilePositions ? kTilePositions / layout.block_tokens : 1;
    tile_lanes = tile_blocks * layout.key_stride();
    q = 0;                                         // [queries, padded head_dim]
    scores = q + queries * layout.value_stride();  // [queries, tile_lanes]
    sums = scores + queries * tile_lanes;          // [queries, padded head_dim]
    state =
        sums + queries * layout.value_stride();  // [queries, 2 · 16]: lanes of the total; maximum
    bytes = (state + queries * 2 * KvLayout::kAlign) * static_cast<std::int64_t>(sizeof(float));
  }
};

}  // namespace penstock
