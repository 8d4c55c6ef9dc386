// The products inside RouteRows. Every output is summed by one warp, or one thread, in an order
// that depends on the shapes alone. Weights are fp32 or bf16; all arithmetic is fp32.
#pragma once

#include "kernels/route_plan.cuh"
#include "kernels/row_vectors.cuh"

namespace penstock {

inline constexpr int kRouteWarps = 8;
inline constexpr int kRouteThreads = kRouteWarps * 32;

// Eight neighbouring weights.
template <Element kElement>
__device__ __forceinline__ Vector8 LoadWeights(const void* weights, std::int64_t vector) {
  if constexpr (kElement == Element::kBF16) return LoadBf16Weight(weights, vector);
  const auto* from = static_cast<const float4*>(weights) + 2 * vector;
  const float4 low = __ldg(from), high = __ldg(from + 1);
  return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
}

template <Element kElement>
__device__ __forceinline__ float LoadWeight(const void* weights, std::int64_t i) {
  if constexpr (kElement == Element::kBF16) {
    return __bfloat162float(__ldg(static_cast<const __nv_bfloat16*>(weights) + i));
  } else {
    return __ldg(static_cast<const float*>(weights) + i);
  }
}

// sums[r][c] = Σ_i x[r][i] · weights[c][i] for kRows rows of bf16 x in shared memory and kColumns
// rows of weights, d long; a warp's work, sums in every lane.
template <Element kElement, int kRows, int kColumns>
__device__ __forceinline__ void RowProducts(const uint4* x, int vectors,
                                            const void* const (&weights)[kColumns],
                                            float (&sums)[kRows][kColumns]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) sums[r][c] = 0;
  }
#pragma unroll 2
  for (int at = lane; at < vectors; at += 32) {
    Vector8 w[kColumns];
#pragma unroll
    for (int c = 0; c < kColumns; ++c) w[c] = LoadWeights<kElement>(weights[c], at);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const Vector8 v = Widen(x[r * vectors + at]);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
#pragma unroll
        for (int i = 0; i < kVector; ++i) sums[r][c] = fmaf(v.v[i], w[c].v[i], sums[r][c]);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) sums[r][c] = WarpSum(sums[r][c]);
  }
}

// sums[r] = Σ_i x[r][i] · weights[i] for fp32 x in shared memory, rows `stride` apart; a warp's
// work, sums in every lane.
template <Element kElement, int kRows>
__device__ __forceinline__ void HiddenProducts(const float* x, int stride, const void* weights,
                                               std::int64_t first, int count,
                                               float (&sums)[kRows]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int r = 0; r < kRows; ++r) sums[r] = 0;
#pragma unroll 4
  for (int i = lane; i < count; i += 32) {
    const float w = LoadWeight<kElement>(weights, first + i);
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[r] = fmaf(x[r * stride + i], w, sums[r]);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) sums[r] = WarpSum(sums[r]);
}

__device__ __forceinline__ float Activate(float x, HiddenActivation activation) {
  constexpr float kSqrtHalf = 0.70710678118654752440f;
  constexpr float kSqrtTwoOverPi = 0.79788456080286535588f;
  if (activation == HiddenActivation::kGeluErf) return 0.5f * x * (1.0f + erff(x * kSqrtHalf));
  if (activation == HiddenActivation::kGeluTanh) {
    return 0.5f * x * (1.0f + tanhf(kSqrtTwoOverPi * (x + 0.044715f * x * x * x)));
  }
  return x;
}

}  // namespace penstock
