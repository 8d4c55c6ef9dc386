// How sums leave grouped_product.cuh: rounded, activated, stored where their rows have their place.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/bulk_copy.cuh"
#include "kernels/grouped_tiles.cuh"
#include "kernels/streaming_results.cuh"
#include "kernels/tile_copy.cuh"

namespace penstock::grouped {

using streaming::Product;

// Which row of y each token of a tile has.
template <Product kProduct>
class Places {
 public:
  // The warp together; to be called long before At.
  __device__ __forceinline__ Places(const Params& p, const Tile& tile) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const bool shared = tile.matrix >= p.experts;
    const int slices = p.shared > 0 ? 1 : 0;  // of the shared expert, in down's y
    listed_ = kProduct == Product::kDown && !shared;
    if constexpr (kProduct == Product::kGateUp) {
      base_ = shared ? p.rows * p.k + tile.first * p.shared + tile.matrix - p.experts : tile.first;
      stride_ = shared ? p.shared : 1;
    } else {
      base_ = tile.first * (p.k + slices) + p.k;
      stride_ = p.k + slices;
#pragma unroll
      for (int i = 0; i < kMaxTokens / 32; ++i) {
        const int token = i * 32 + lane;
        if (!listed_ || token >= tile.count) continue;
        const int slot = p.slots[tile.first + token];
        places_[i] = slot + slot / p.k * slices;
      }
    }
  }

  // Of token 8·octet + lane % 8 (+ 8 where `second`); octet is known when compiled. The warp
  // together.
  __device__ __forceinline__ int At(int octet, int second) const {
    const int token = octet * 8 + second * 8 + static_cast<int>(threadIdx.x) % 8;
    if constexpr (kProduct == Product::kDown) {
      const int listed = __shfl_sync(~0u, places_[octet / 4], token % 32);
      if (listed_) return listed;
    }
    return base_ + token * stride_;
  }

 private:
  int base_ = 0, stride_ = 1;
  bool listed_ = false;
  int places_[kProduct == Product::kDown ? kMaxTokens / 32 : 1] = {};
};

// Two blocks of 64 rows of weights by kTokens tokens, as MultiplyAdd leaves them. A warp holds
// neighbouring outputs: 16 of gate·up, whose rows stand 8 gate rows before the 8 up rows of the
// same outputs, 32 of down. Squares of 8 outputs × 8 tokens are turned, four at a time, so that
// what a warp stores of a token are whole sectors of 32 bytes. buffer: the warp's, 2 × 512 bytes.
template <Product kProduct, int kTokens>
__device__ __forceinline__ void StoreTile(const Params& p, const Tile& tile,
                                          const float (&sum)[2][kTokens / 2],
                                          const Places<kProduct>& places, unsigned char* buffer) {
  constexpr int kOutputs = kProduct == Product::kGateUp ? 16 : 32;  // of a warp
  constexpr int kOctetsAtOnce = 32 / kOutputs;                      // of tokens
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int output =
      (tile.group * 8 + warp) * kOutputs + lane / 8 % (kOutputs / 8) * 8;  // 8 warps to a tile
  const int second = kProduct == Product::kGateUp ? lane / 16 : 0;
#pragma unroll
  for (int octet = 0; octet < kTokens / 8; octet += kOctetsAtOnce) {
    std::uint32_t squares[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int j = octet + (kProduct == Product::kGateUp ? i / 2 : 0);
      squares[i] = 0;
      if (j >= kTokens / 8) continue;
      const float* s = sum[i % 2] + 4 * j;
      __nv_bfloat162 pair;
      if constexpr (kProduct == Product::kGateUp) {
        pair = streaming::GatedSilu(s[0], s[2], s[1], s[3]);
      } else {
        pair = __floats2bfloat162_rn(s[i / 2 * 2], s[i / 2 * 2 + 1]);
      }
      squares[i] = reinterpret_cast<const std::uint32_t&>(pair);
    }
    // Two buffers: a warp that writes one has read the other.
    unsigned char* own = buffer + octet / kOctetsAtOnce % 2 * 512 + lane * 16;
    StoreSquaresTurned(SharedAddress(own), squares);
    const int place = places.At(octet, second);
    __syncwarp();
    const uint4 outputs = *reinterpret_cast<const uint4*>(own);
    const int token = (octet + second) * 8 + lane % 8;
    if (token < tile.count && output < p.m)
      *reinterpret_cast<uint4*>(p.y + std::int64_t{place} * p.m + output) = outputs;
  }
}

}  // namespace penstock::grouped
