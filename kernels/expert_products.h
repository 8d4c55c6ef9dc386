// The two products of a sparse layer's experts, for the rows that its router gave them: gate·up
// with SiLU, then down. The shared expert is `shared` further experts of the routed experts' width,
// which every row passes.
#pragma once

#include <cstdint>

#include "kernels/cuda_stream.h"
#include "kernels/tile_map.h"

namespace penstock {

// Slot r·k + j is expert rank j of row r. h and y have k + shared places a row: the k routed ones
// in order of rank, then the shared ones.
//
// Where an expert has many rows (ExpertsInListOrder), h is the slots' rows [rows·k, width] as the
// lists have them, then the shared ones' [rows, shared, width]; and the shared experts' outputs are
// one sum: y has SharedPlaces of them.
struct ExpertProductsArgs {
  // Beyond these the rows' own arithmetic, not memory, bounds the shared experts.
  static constexpr std::int64_t kMaxEarlyRows = 256;
  static constexpr std::int64_t kTileCounters = 2;
  // Choices, and experts, of steps whose lists the kernels can make themselves.
  static constexpr std::int64_t kMaxOwnSlots = 256, kMaxOwnExperts = 256;

  const void* x = nullptr;               // bf16 [rows, d]
  const void* gate_up = nullptr;         // bf16 [experts + shared, 2, width, d]
  const void* down = nullptr;            // bf16 [experts + shared, d, width]
  const TileMap* gate_up_map = nullptr;  // MakeGatedTileMap(gate_up, experts + shared, width, d)
  const TileMap* down_map = nullptr;     // MakeTileMap(down, experts + shared, d, width)
  const std::int32_t* expert_offsets = nullptr;  // [experts + 1] into slots, from 0
  // [rows·k] by expert, then by row; from expert_offsets[experts] on unused (padding rows stand in
  // no list).
  const std::int32_t* slots = nullptr;
  // Instead of these two, where ListsItself: the experts of each row, and how many rows are no
  // padding. Every block then makes the lists of a few choices itself, and nobody waits for another
  // to make them for all.
  const std::int32_t* expert_ids = nullptr;  // [rows, k]; those outside [0, experts) are left out
  const std::int32_t* num_rows = nullptr;    // [1]
  void* h = nullptr;  // bf16 [rows, k + shared, width]: gate·up's out, down's in
  // bf16 [rows, k + SharedPlaces, d], out of down: not yet weighted. ExpertsInListOrder: gate·up
  // leaves x in list order there.
  void* y = nullptr;
  // Zeros, of this layer alone: which tile is next, and who is done. Left at zero.
  std::int32_t* gate_up_tiles = nullptr;  // [kTileCounters]
  std::int32_t* down_tiles = nullptr;     // [kTileCounters]
  // [1], of this layer alone, or null. ResidualNorm counts there the rows of x that are done; as
  // soon as it stands at `rows`, gate·up computes the shared experts, while the router behind the
  // norm is still at work. Down leaves it at zero. Null beyond kMaxEarlyRows rows, and where there
  // is no map.
  std::int32_t* x_ready = nullptr;
  std::int64_t rows = 0;  // any number
  std::int64_t d = 0;
  std::int64_t width = 0;
  std::int64_t experts = 0;
  std::int64_t shared = 0;  // 0: the layer has no shared expert, or one of another width
  std::int64_t k = 0;
};

// Whether the products are those of grouped_product.cuh: from 192 rows on for each expert, on
// average, of shapes whose tiles the copy engine reads. Measured on an H100.
constexpr bool ExpertsInListOrder(const ExpertProductsArgs& args) {
  return args.rows * args.k >= 192 * args.experts && args.rows > 256 && args.d % 8 == 0 &&
         args.width % 16 == 0;
}
// Whether expert_ids may take the place of lists.
constexpr bool ListsItself(const ExpertProductsArgs& args) {
  return args.gate_up_map != nullptr && args.down_map != nullptr &&
         args.rows * args.k <= ExpertProductsArgs::kMaxOwnSlots &&
         args.experts <= ExpertProductsArgs::kMaxOwnExperts;
}
constexpr std::int64_t SharedPlaces(const ExpertProductsArgs& args) {
  return ExpertsInListOrder(args) && args.shared > 1 ? 1 : args.shared;
}

// h = M(M(silu(M(gate))) · M(up)) with gate and up of the slot's expert, M rounding to bf16, sums
// in fp32: what Hugging Face's experts round.
void ExpertGateUpCpu(const ExpertProductsArgs& args);
// y = M(down · h); one sum over the shared experts' where they have one place.
void ExpertDownCpu(const ExpertProductsArgs& args);

// Places of slots that stand in no list are left as they are. What a slot gets does not depend, to
// the bit, on the rest of the batch but for how the shared expert is summed. Null maps: the copy
// engine stays unused, for shapes that it cannot read.
void ExpertGateUpCuda(const ExpertProductsArgs& args, CudaStream stream);
void ExpertDownCuda(const ExpertProductsArgs& args, CudaStream stream);

}  // namespace penstock
