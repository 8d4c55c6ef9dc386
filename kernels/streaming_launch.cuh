// Launching streaming_product.cuh: what shared memory holds, and how kernels follow each other.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda_stream.h"
#include "kernels/streaming_product.cuh"

namespace penstock::streaming {

constexpr int kSharedBytes = 227 * 1024;  // of one CTA on sm_90

// Of one CTA's weights, what is on its way at once while earlier kernels are at work. Measured on
// an H100: less costs bandwidth, more makes those kernels wait.
constexpr int kPacedBytes = 32 * 1024;

template <Product kProduct, typename Shape>
void LaunchStreaming(Params params, const TileMap& map, CudaStream stream) {
  constexpr auto kernel = StreamingProduct<kProduct, Shape>;
  static const bool raised =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes) ==
      cudaSuccess;
  if (!raised) return;  // what failed is what cudaGetLastError reports
  constexpr int kOutputs = kOutputsOf<kProduct, Shape>;
  params.row_groups = (params.m + kOutputs - 1) / kOutputs;
  const int chunks = (params.rows + Shape::kMaxTokens - 1) / Shape::kMaxTokens;
  int tiles = (IsDense(kProduct) ? params.splits : params.shared) * params.row_groups * chunks;
  params.fixed_every = 1;
  params.fixed_first = 0;
  if constexpr (!IsDense(kProduct)) {
    const int fixed = tiles, slots = params.rows * params.k;
    params.job_capacity = std::min(params.experts, slots) + slots / Shape::kMaxTokens;
    tiles += params.job_capacity * params.row_groups;
    // Fixed tiles come first, so that their weights load while the lists are still being made.
    // Where they hold so many tokens that L2 or the products bound them, they are spread among the
    // listed ones, which memory bounds; three quarters of all tiles, counted as if experts were
    // chosen alike, are behind when the last fixed one starts.
    const int alike = std::max(1, slots / std::max(1, params.experts));
    const int listed = std::min(params.experts, slots) *
                       ((alike + Shape::kMaxTokens - 1) / Shape::kMaxTokens) * params.row_groups;
    if (chunks > 1 && fixed > 0) {
      params.fixed_every = std::max(1, (3 * (fixed + listed) / fixed + 2) / 4);
      // What there is to do before the lists are there.
      if (params.x_ready != nullptr && kProduct == Product::kGateUp)
        params.fixed_first = std::min(fixed, MultiprocessorCount());
    }
  }
  // Where nearly all experts get rows (of 60 by 64 rows of 4: 59).
  constexpr int kGuessedBytes = 192 * 1024, kRowsOfExpert = 4;  // of one CTA
  params.guesses = kProduct == Product::kGateUp && params.fixed_every == 1 &&
                           params.rows * params.k >= kRowsOfExpert * params.experts
                       ? kGuessedBytes / Shape::kWeightSlotBytes
                       : 0;
  // Tokens come from L2 and need less in flight than weights do.
  constexpr int kWeights = Shape::kWeightSlotBytes, kTokens = Shape::kTokenSlotBytes;
  const int header = HeaderBytes<Shape>(params);
  params.weight_slots =
      std::min((kSharedBytes - header - Shape::kTokenSlots * kTokens) / kWeights, kMaxSlots);
  if (Shape::kMaxTokens <= 8 && IsDense(kProduct) && tiles <= MultiprocessorCount()) {
    // What a CTA's only tile does not need is left to others, who are many beside so few rows.
    const int columns = std::min(params.part, params.n);
    params.weight_slots =
        std::min(params.weight_slots, (columns + Shape::kColumns - 1) / Shape::kColumns);
  }
  params.paced = std::max(1, kPacedBytes / kWeights);
  params.token_slots = std::min(Shape::kTokenSlots, params.weight_slots);
  const int shared_bytes = header + params.weight_slots * kWeights + params.token_slots * kTokens;
  Launch(kernel, dim3(std::min(MultiprocessorCount(), tiles)), Shape::kThreads, shared_bytes,
         Overlap::kWithEarlier, stream, params, map);
}

}  // namespace penstock::streaming
