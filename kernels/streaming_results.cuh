// How sums leave streaming_product.cuh: rounded, activated, stored where their tokens have their
// place.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/bulk_copy.cuh"
#include "kernels/streaming_tiles.cuh"
#include "kernels/tile_copy.cuh"

namespace penstock::streaming {

// M(M(silu(M(gate))) · M(up)), M rounding to bf16. The quotient may be off by two units in the last
// place of fp32.
__device__ __forceinline__ __nv_bfloat16 GatedSilu(float gate, float up) {
  const float2 rounded = __bfloat1622float2(__floats2bfloat162_rn(gate, up));
  const float g = rounded.x;
  const float silu = __bfloat162float(__float2bfloat16(__fdividef(g, 1.0f + __expf(-g))));
  return __float2bfloat16(silu * rounded.y);
}

// The same of two, the conversions in pairs: single ones share the unit of exponentials and
// quotients.
__device__ __forceinline__ __nv_bfloat162 GatedSilu(float gate, float up, float second_gate,
                                                    float second_up) {
  const float2 g = __bfloat1622float2(__floats2bfloat162_rn(gate, second_gate));
  const float2 u = __bfloat1622float2(__floats2bfloat162_rn(up, second_up));
  const float2 silu = __bfloat1622float2(__floats2bfloat162_rn(
      __fdividef(g.x, 1.0f + __expf(-g.x)), __fdividef(g.y, 1.0f + __expf(-g.y))));
  return __floats2bfloat162_rn(silu.x * u.x, silu.y * u.y);
}

template <Product kProduct, typename Shape>
class Results {
 public:
  // turn: [warps, 2, 512] bytes of shared memory, where Shape::kTurnBytes is not 0.
  __device__ __forceinline__ Results(const Params& params, unsigned char* turn)
      : p_(params), turn_(turn) {}

  // One block of 64 rows of W by kTokens tokens, as MultiplyAdd leaves it; places of −1 are
  // dropped.
  template <int kTokens>
  __device__ __forceinline__ void Store(int group, int block, const float (&sum)[kTokens / 2],
                                        const int* places) const {
    if constexpr (kBlocks > 1 && kProduct != Product::kDenseF32) {
      if (p_.m % 8 == 0) return StoreTurned<kTokens>(group, block, sum, places);
    }
    const int warp = threadIdx.x / 32 % 4, g = threadIdx.x % 32 / 4, q = threadIdx.x % 4;
#pragma unroll
    for (int j = 0; j < kTokens / 8; ++j) {
      const int2 at = *reinterpret_cast<const int2*>(places + 8 * j + 2 * q);
      const float* s = sum + 4 * j;
      if constexpr (kProduct == Product::kGateUp) {
        StorePair(group * kOutputs + block * 32 + warp * 8 + g, at, GatedSilu(s[0], s[2]),
                  GatedSilu(s[1], s[3]));
      } else {
        const int output = group * kOutputs + block * 64 + warp * 16 + g;
        if constexpr (kProduct == Product::kDenseF32) {
          StoreOne(output, at.x, s[0]);
          StoreOne(output, at.y, s[1]);
          StoreOne(output + 8, at.x, s[2]);
          StoreOne(output + 8, at.y, s[3]);
        } else {
          StorePair(output, at, __float2bfloat16(s[0]), __float2bfloat16(s[1]));
          StorePair(output + 8, at, __float2bfloat16(s[2]), __float2bfloat16(s[3]));
        }
      }
    }
  }

 private:
  static constexpr int kOutputs = kOutputsOf<kProduct, Shape>, kBlocks = Shape::kBlocks;

  // Squares of 8 outputs × 8 tokens are turned, four at a time, so that a lane holds 8 outputs of
  // one token: with many tokens, stores would otherwise take a quarter of the time.
  template <int kTokens>
  __device__ __forceinline__ void StoreTurned(int group, int block, const float (&sum)[kTokens / 2],
                                              const int* places) const {
    constexpr int kHalves = kProduct == Product::kGateUp ? 1 : 2;  // of the warp's outputs
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, square = lane / 8;
    const int output =
        group * kOutputs + (block * 4 + warp % 4) * 8 * kHalves + square % kHalves * 8;
    __syncwarp();  // the block before has been read
#pragma unroll
    for (int first = 0; first < kTokens; first += 32 / kHalves) {
      std::uint32_t squares[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int j = first / 8 + i / kHalves;
        squares[i] = 0;
        if (j >= kTokens / 8) continue;
        const float* s = sum + 4 * j;
        __nv_bfloat162 pair;
        if constexpr (kProduct == Product::kGateUp) {
          pair = GatedSilu(s[0], s[2], s[1], s[3]);
        } else {
          pair = __floats2bfloat162_rn(s[i % 2 * 2], s[i % 2 * 2 + 1]);
        }
        squares[i] = reinterpret_cast<const std::uint32_t&>(pair);
      }
      // Two buffers: a warp that writes one has read the other.
      unsigned char* buffer = turn_ + (warp * 2 + first / (32 / kHalves) % 2) * 512 + lane * 16;
      StoreSquaresTurned(SharedAddress(buffer), squares);
      __syncwarp();
      const uint4 outputs = *reinterpret_cast<const uint4*>(buffer);
      const int token = first + square / kHalves * 8 + lane % 8;
      const int place = token < kTokens ? places[token] : -1;
      if (place < 0 || output >= p_.m) continue;
      auto* y = static_cast<__nv_bfloat16*>(p_.y) + std::int64_t{place} * p_.m + output;
      *reinterpret_cast<uint4*>(y) = outputs;
    }
  }

  __device__ __forceinline__ void StoreOne(int output, int place, float value) const {
    if (place < 0 || output >= p_.m) return;
    static_cast<float*>(p_.y)[std::int64_t{place} * p_.m + output] = value;
  }

  // Output `output` of two tokens. Lanes of outputs 2i and 2i + 1 swap a value, so that each stores
  // two outputs of one token. Every lane of the warp calls.
  __device__ __forceinline__ void StorePair(int output, int2 places, __nv_bfloat16 first,
                                            __nv_bfloat16 second) const {
    auto* y = static_cast<__nv_bfloat16*>(p_.y);
    const bool odd = threadIdx.x / 4 % 2 == 1;
    const __nv_bfloat16 other = __shfl_xor_sync(~0u, odd ? first : second, 4);
    const int place = odd ? places.y : places.x, even_output = output - odd;
    if (place < 0) return;
    const __nv_bfloat16 low = odd ? other : first, high = odd ? second : other;
    __nv_bfloat16* to = y + std::int64_t{place} * p_.m + even_output;
    if (p_.m % 2 == 0) {
      if (even_output < p_.m) *reinterpret_cast<__nv_bfloat162*>(to) = __nv_bfloat162(low, high);
    } else {
      if (even_output < p_.m) to[0] = low;
      if (even_output + 1 < p_.m) to[1] = high;
    }
  }

  const Params& p_;
  unsigned char* turn_;
};

}  // namespace penstock::streaming
