// The two products of a sparse layer's experts, for the rows that its router gave them: gate·up
// with SiLU, then down. The shared expert is `shared` further experts of the routed experts' width,
// which every row passes.
#pragma once

#include <cstdint>

#include "kernels/cuda_stream.h"
#include "kernels/tile_map.h"

namespace penstock {

// Slot r·k + j is expert rank j of row r. h and the outputs have k + shared places a row: the k
// routed ones in order of rank, then the shared ones.
struct ExpertProductsArgs {
  const void* x = nullptr;               // bf16 [rows, d]
  const void* gate_up = nullptr;         // bf16 [experts + shared, 2, width, d]
  const void* down = nullptr;            // bf16 [experts + shared, d, width]
  const TileMap* gate_up_map = nullptr;  // MakeGatedTileMap(gate_up, experts + shared, width, d)
  const TileMap* down_map = nullptr;     // MakeTileMap(down, experts + shared, d, width)
  const std::int32_t* expert_offsets = nullptr;  // [experts + 1] into slots, from 0
  const std::int32_t* slots =
      nullptr;        // [rows·k] by expert, then by row; from expert_offsets[experts]
                      // on unused (padding rows stand in no list)
  void* h = nullptr;  // bf16 [rows, k + shared, width]: gate·up's out, down's in
  void* y = nullptr;  // bf16 [rows, k + shared, d], out of down: not yet weighted
  // [2] zeros, of this layer alone (one pair for each product): which tile is next. Left at zero.
  std::int32_t* gate_up_tiles = nullptr;
  std::int32_t* down_tiles = nullptr;
  std::int64_t rows = 0;  // any number; made for 1 to 256
  std::int64_t d = 0;
  std::int64_t width = 0;
  std::int64_t experts = 0;
  std::int64_t shared = 0;  // 0: the layer has no shared expert, or one of another width
  std::int64_t k = 0;
};

// h = M(M(silu(M(gate))) · M(up)) with gate and up of the slot's expert, M rounding to bf16, sums
// in fp32: what Hugging Face's experts round.
void ExpertGateUpCpu(const ExpertProductsArgs& args);
// y = M(down · h).
void ExpertDownCpu(const ExpertProductsArgs& args);

// Places of slots that stand in no list are left as they are. What a slot gets does not depend, to
// the bit, on the rest of the batch. Null maps: the copy engine stays unused, for shapes that it
// cannot read.
void ExpertGateUpCuda(const ExpertProductsArgs& args, CudaStream stream);
void ExpertDownCuda(const ExpertProductsArgs& args, CudaStream stream);

}  // namespace penstock
