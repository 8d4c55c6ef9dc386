// Products of RouteRows with a small hidden layer, by plain multiply-adds: a thread's weights stand
// in registers before the hidden layer is there, and what then runs is a short loop over the rows.
// Most of what code costs that a block runs through once is fetching it. Sums are fp32, in an order
// that depends on nothing but the input's place; a row's do not depend on the others.
#pragma once

#include <cstdint>

#include "kernels/route_products.cuh"

namespace penstock {

inline constexpr int kPlainLanes = 4;                              // that share an output
inline constexpr int kPlainOutputs = kRouteThreads / kPlainLanes;  // of a block
inline constexpr int kPlainWidth = 256;                            // inputs, at most

// Whether a program's products with its hidden layer are made so.
__device__ __forceinline__ bool FitsPlain(const RouterProgram& program, int experts) {
  return experts <= kPlainOutputs && program.hidden <= kPlainWidth && program.hidden % 8 == 0;
}

// 4 · kUnits weights of a thread.
template <int kUnits>
struct PlainWeights {
  float4 units[kUnits];

  // Of a row of `width` inputs, a multiple of 4, those that this lane multiplies: four at
  // 16 · j + 4 · lane, for each j; zeros where there are none, or no row.
  __device__ __forceinline__ void LoadShare(const float* row, int width) {
    const int lane = static_cast<int>(threadIdx.x) % kPlainLanes;
#pragma unroll
    for (int j = 0; j < kUnits; ++j) {
      const int at = 4 * (kPlainLanes * j + lane);
      units[j] = make_float4(0, 0, 0, 0);
      if (row != nullptr && at < width) units[j] = __ldg(reinterpret_cast<const float4*>(row + at));
    }
  }

  // Of LoadShare: the sum over x [16 · kUnits] in shared memory, in all lanes that share the
  // output. The warp together.
  __device__ __forceinline__ float SumOfShares(const float* x) const {
    const auto* own = reinterpret_cast<const float4*>(x) + threadIdx.x % kPlainLanes;
    float sums[4] = {};
#pragma unroll
    for (int j = 0; j < kUnits; ++j) Add(units[j], own[kPlainLanes * j], sums);
    float sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
#pragma unroll
    for (int step = 1; step < kPlainLanes; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
    return sum;
  }

 private:
  __device__ __forceinline__ static void Add(const float4& w, const float4& x, float (&sums)[4]) {
    sums[0] = fmaf(w.x, x.x, sums[0]);
    sums[1] = fmaf(w.y, x.y, sums[1]);
    sums[2] = fmaf(w.z, x.z, sums[2]);
    sums[3] = fmaf(w.w, x.w, sums[3]);
  }
};

}  // namespace penstock
