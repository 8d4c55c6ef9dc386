// Launching streaming_product.cuh: what shared memory holds, and how kernels follow each other.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cuda_stream.h"
#include "kernels/streaming_product.cuh"

namespace penstock::streaming {

// Shared memory of one CTA on sm_90, less the slack that aligns it.
constexpr int kSharedBytes = 227 * 1024 - 1024;

template <Product kProduct, int kWarpgroups, int kMaxTokens>
void LaunchStreaming(Params params, const TileMap& map, CudaStream stream) {
  constexpr int kRows = kWarpgroups * 64;
  constexpr int kOutputs = kProduct == Product::kGateUp ? kRows / 2 : kRows;
  constexpr auto kernel = StreamingProduct<kProduct, kWarpgroups, kMaxTokens>;
  static const bool raised =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 * 1024) ==
      cudaSuccess;
  if (!raised) return;  // the launch that failed is what cudaGetLastError reports
  params.row_groups = (params.m + kOutputs - 1) / kOutputs;
  const int chunks = (params.rows + kMaxTokens - 1) / kMaxTokens;
  int tiles = (IsDense(kProduct) ? params.splits : params.shared) * params.row_groups * chunks;
  params.fixed_every = 1;
  if constexpr (!IsDense(kProduct)) {
    const int fixed = tiles, slots = params.rows * params.k;
    params.job_capacity = std::min(params.experts, slots) + slots / kMaxTokens;
    tiles += params.job_capacity * params.row_groups;
    // Fixed tiles come first, so that their weights load while the lists are still being made.
    // Where they hold so many tokens that L2 bounds them, they are spread over 70 % of all tiles
    // instead.
    if (chunks > 1 && fixed > 0) params.fixed_every = std::max(1, tiles / 2 / fixed);
  }
  // Tokens come from L2 and need less in flight than weights do; small ones get as many slots.
  constexpr int kWeights = WeightSlotBytes(kWarpgroups), kTokens = TokenSlotBytes(kMaxTokens);
  const int room = kSharedBytes - HeaderBytes(params.job_capacity);
  params.token_slots = kMaxTokens <= 16 ? kMaxSlots : kMaxTokens <= 64 ? 4 : 2;
  params.weight_slots = kMaxTokens <= 16 ? room / (kWeights + kTokens)
                                         : (room - params.token_slots * kTokens) / kWeights;
  params.weight_slots = std::min(params.weight_slots, kMaxSlots);
  params.token_slots = std::min(params.token_slots, params.weight_slots);

  const int shared_bytes = 1024 + HeaderBytes(params.job_capacity) +
                           params.weight_slots * kWeights + params.token_slots * kTokens;
  Launch(kernel, dim3(std::min(MultiprocessorCount(), tiles)), Threads(kWarpgroups), shared_bytes,
         Overlap::kWithEarlier, stream, params, map);
}

}  // namespace penstock::streaming
