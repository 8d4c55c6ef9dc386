// How streaming_product.cuh cuts a product into tiles, and what of them a CTA keeps in shared
// memory.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/expert_products.h"

namespace penstock::streaming {

enum class Product {
  kGateUp,     // bf16 silu(gate)·up; tokens by list or all
  kDown,       // bf16; tokens by list or all
  kDenseF32,   // all tokens; columns may be split
  kDenseBf16,  // all tokens
};

constexpr bool IsDense(Product product) {
  return product == Product::kDenseF32 || product == Product::kDenseBf16;
}

struct Params {
  const __nv_bfloat16* x;  // token rows, n apart
  void* y;
  const std::int32_t* expert_offsets;  // [experts + 1]
  const std::int32_t* slots;
  const std::int32_t* expert_ids;  // [rows, k], or null; then expert_offsets and slots are not read
  const std::int32_t* num_rows;
  std::int32_t* next_tile;  // [2]: tiles handed out, CTAs finished; null: tiles by a fixed stride
  int rows, n, m;           // m: outputs of a matrix, after SiLU
  int experts, shared, k;
  int splits, part;  // of the columns, dense products only
  int row_groups;    // tiles over m
  // The first `fixed_first` tiles need no list, then one of `fixed_every`, until these are used up
  // (1: they come first).
  int fixed_every, fixed_first;
  int weight_slots, token_slots;
  int job_capacity;
  // Of shapes that are kBesideOthers:
  int paced;    // stages of weights on their way at once, as long as earlier kernels are at work
  int guesses;  // gate·up: stages brought to L2 of a tile that the lists will probably name
  // Gate·up: null, or where rows of x are counted: tiles that need no list begin when it stands at
  // `rows`, whether or not the kernels before have ended. Down leaves it at zero.
  std::int32_t* x_ready;
};

constexpr int kTokenWarps = 4;
constexpr int kPanelColumns = 64;    // 128 bytes, the swizzle's span
constexpr int kBoxBytes = 64 * 128;  // 64 rows of a panel

// What a CTA multiplies at once: kWarpgroups · kBlocks blocks of 64 rows of W by up to kMaxTokens
// tokens, kColumns columns a stage. Two blocks a warpgroup fetch each token half as often; their
// sums take so many registers that those of the other warps are handed over.
template <int kWarpgroups_, int kBlocks_, int kColumns_, int kMaxTokens_>
struct TileShape {
  static constexpr int kWarpgroups = kWarpgroups_, kBlocks = kBlocks_, kColumns = kColumns_,
                       kMaxTokens = kMaxTokens_;
  static constexpr int kRows = kWarpgroups * kBlocks * 64;
  static constexpr int kPanels = kColumns / kPanelColumns;
  static constexpr int kWeightSlotBytes = kRows * kColumns * 2;
  static constexpr int kTokenSlotBytes = kMaxTokens * kColumns * 2;
  static constexpr bool kTradesRegisters = kBlocks > 1;
  static constexpr int kTokenSlots = kMaxTokens <= 16                  ? 12
                                     : kMaxTokens <= 64 || kBlocks > 1 ? 4
                                                                       : 2;
  // Products that memory bounds are at work beside the small kernels in front of them: weights
  // come at a measured pace until those have ended, and gate·up may start before its lists are
  // there.
  static constexpr bool kBesideOthers = kBlocks == 1;
  static constexpr int kConsumerWarps = kWarpgroups * 4;
  static constexpr int kTurnBytes = kBlocks > 1 ? kConsumerWarps * 2 * 512 : 0;
  static constexpr int kThreads = (kConsumerWarps + (kTradesRegisters ? 8 : 2 + kTokenWarps)) * 32;
};

template <Product kProduct, typename Shape>
constexpr int kOutputsOf = kProduct == Product::kGateUp ? Shape::kRows / 2 : Shape::kRows;

// Tokens of one chunk where `count` go through in chunks of at most `most`: as even as can be.
__host__ __device__ constexpr int ChunkOf(int count, int most) {
  const int chunks = (count + most - 1) / most;
  return chunks == 0 ? most : (count + chunks - 1) / chunks;
}

constexpr int kMaxSlots = 16;
// Tiles that the weight thread may be ahead of the slowest warp: a tile has at least one stage.
constexpr int kTileQueue = 32;
static_assert(kTileQueue >= kMaxSlots + 2);

// One tile of work. `count` token rows: those of slots[first…], or rows first… of the batch.
struct Tile {
  int matrix;  // expert; of a dense product: which part of the columns; −1: no more tiles
  int group;   // of outputs
  int first;
  int count;
};

struct alignas(16) Shared {
  std::uint64_t weights_full[kMaxSlots], weights_empty[kMaxSlots];
  std::uint64_t tokens_full[kMaxSlots], tokens_empty[kMaxSlots];
  std::uint64_t tile_ready[kTileQueue];
  std::uint64_t jobs_ready;
  Tile tiles[kTileQueue];
  int job_count;
  int earlier_ended;  // 1: no earlier kernel is at work
};

// A place in a ring of slots, and the parity of the round.
struct Cursor {
  int slot = 0;
  int parity = 0;
  __device__ __forceinline__ void Next(int slots) {
    if (++slot == slots) {
      slot = 0;
      parity ^= 1;
    }
  }
};

}  // namespace penstock::streaming
