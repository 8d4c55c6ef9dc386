// The arithmetic of DecodeAttention: one split of the context, by one warp.
#pragma once

#include <cstdint>

#include "kernels/decode_walk.cuh"
#include "kernels/row_vectors.cuh"

namespace penstock {

// What a stored split has behind its sums: maximum, total, padding.
inline constexpr int kSplitTail = 4;

// What one split, or several folded ones, amounts to for one query. Lane l holds dimensions
// 8 · (l mod (head_dim / 8)) … + 7; lanes that share them hold the same.
struct Partial {
  float maximum = -INFINITY, total = 0;
  float sums[kVector] = {};

  __device__ __forceinline__ void Fold(const Partial& next) {
    const float highest = fmaxf(maximum, next.maximum);
    const float old = exp2f(maximum - highest), fresh = exp2f(next.maximum - highest);
    maximum = highest;
    total = fmaf(total, old, next.total * fresh);
#pragma unroll
    for (int i = 0; i < kVector; ++i) sums[i] = fmaf(sums[i], old, next.sums[i] * fresh);
  }
};

// Eight bf16 elements of shared memory.
__device__ __forceinline__ Vector8 LoadShared(const char* from) {
  return Widen(*reinterpret_cast<const uint4*>(from));
}

// Adds one block to the split's partials of kQueries query heads. q: this lane's part of the
// queries, times the scale and log2 e. Lanes stand as [4 positions][8 parts of the head] over keys,
// and as [positions][head_dim / 8] over values.
template <int kHeadDim, int kQueries>
__device__ __forceinline__ void AddBlock(const char* block, int positions,
                                         const Vector8 (&q)[kQueries][kHeadDim / 64],
                                         Partial (&partials)[kQueries]) {
  constexpr int kRowBytes = kHeadDim * 2, kParts = kHeadDim / 64, kGroups = kDecodeBlockTokens / 4;
  constexpr int kValueLanes = kHeadDim / 8, kTogether = 32 / kValueLanes;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float scores[kQueries][kGroups] = {};
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
    const char* key = block + (group * 4 + lane / 8) * kRowBytes + lane % 8 * 16;
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      const Vector8 k = LoadShared(key + part * 128);
#pragma unroll
      for (int query = 0; query < kQueries; ++query) {
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
          scores[query][group] = fmaf(q[query][part].v[i], k.v[i], scores[query][group]);
        }
      }
    }
  }
#pragma unroll
  for (int query = 0; query < kQueries; ++query) {
    Partial& partial = partials[query];
    float highest = partial.maximum;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      float& score = scores[query][group];
#pragma unroll
      for (int step = 1; step < 8; step *= 2) score += __shfl_xor_sync(~0u, score, step);
      if (group * 4 + lane / 8 >= positions) score = -INFINITY;
      highest = fmaxf(highest, score);
    }
    highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 8));
    highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 16));
    const float old = exp2f(partial.maximum - highest);
    partial.maximum = highest;
    float total = 0;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      scores[query][group] = exp2f(scores[query][group] - highest);
      total += scores[query][group];
    }
    partial.total = fmaf(partial.total, old, total);
#pragma unroll
    for (int i = 0; i < kVector; ++i) partial.sums[i] *= old;
  }
  const char* values = block + kDecodeBlockTokens * kRowBytes + lane / kValueLanes * kRowBytes +
                       lane % kValueLanes * 16;
#pragma unroll
  for (int step = 0; step < kDecodeBlockTokens / kTogether; ++step) {
    // What stands behind the context may be anything, NaN too.
    const bool in = step * kTogether + lane / kValueLanes < positions;
    const Vector8 v = in ? LoadShared(values + step * kTogether * kRowBytes) : Vector8();
    // The weight of position step · kTogether + lane / kValueLanes.
    const int in_group = step * kTogether % 4 + lane / kValueLanes;
#pragma unroll
    for (int query = 0; query < kQueries; ++query) {
      const float weight = __shfl_sync(~0u, scores[query][step * kTogether / 4], in_group * 8);
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        partials[query].sums[i] = fmaf(weight, v.v[i], partials[query].sums[i]);
      }
    }
  }
}

// Adds up what the lanes hold of a split.
template <int kHeadDim>
__device__ __forceinline__ void Gather(Partial& partial) {
  partial.total += __shfl_xor_sync(~0u, partial.total, 8);
  partial.total += __shfl_xor_sync(~0u, partial.total, 16);
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
#pragma unroll
    for (int step = kHeadDim / 8; step < 32; step *= 2) {
      partial.sums[i] += __shfl_xor_sync(~0u, partial.sums[i], step);
    }
  }
}

template <int kHeadDim>
__device__ __forceinline__ void StorePartial(const Partial& partial, float* to) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (lane < kHeadDim / 8) {
    auto* sums = reinterpret_cast<float4*>(to) + 2 * lane;
    __stcg(sums, make_float4(partial.sums[0], partial.sums[1], partial.sums[2], partial.sums[3]));
    __stcg(sums + 1,
           make_float4(partial.sums[4], partial.sums[5], partial.sums[6], partial.sums[7]));
  }
  if (lane == 0) {
    __stcg(reinterpret_cast<float2*>(to + kHeadDim), make_float2(partial.maximum, partial.total));
  }
}

template <int kHeadDim>
__device__ __forceinline__ Partial LoadStoredPartial(const float* from) {
  const int lane = static_cast<int>(threadIdx.x) % (kHeadDim / 8);
  const Vector8 sums = LoadF32(from, lane);
  const float2 tail = __ldcg(reinterpret_cast<const float2*>(from + kHeadDim));
  Partial partial;
  partial.maximum = tail.x;
  partial.total = tail.y;
#pragma unroll
  for (int i = 0; i < kVector; ++i) partial.sums[i] = sums.v[i];
  return partial;
}

}  // namespace penstock
