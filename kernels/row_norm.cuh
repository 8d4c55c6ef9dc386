// The norm of one row that a thread block holds in registers.
#pragma once

#include "kernels/row_vectors.cuh"

namespace penstock {

inline constexpr int kRowNormThreads = 256;
inline constexpr int kRowNormWarps = kRowNormThreads / 32;
// Vectors of a row that one thread holds, at most: rows of up to 8,192 elements.
inline constexpr int kRowNormMaxVectors = 4;

// y = M(weight · M(x / √(mean(x²) + ε))). Thread t holds vectors t, t + 256, … of x and weight;
// those from `vectors` on are zero and not stored.
template <int kVectors>
__device__ __forceinline__ void NormalizeRow(const Vector8 (&x)[kVectors],
                                             const Vector8 (&weight)[kVectors], int vectors,
                                             float epsilon, void* y, float* shared) {
  float squares = 0;
#pragma unroll
  for (int n = 0; n < kVectors; ++n) {
#pragma unroll
    for (int i = 0; i < kVector; ++i) squares = fmaf(x[n].v[i], x[n].v[i], squares);
  }
  const float mean =
      BlockSum<kRowNormWarps>(squares, shared) / static_cast<float>(vectors * kVector);
  const float scale = 1.0f / sqrtf(mean + epsilon);
#pragma unroll
  for (int n = 0; n < kVectors; ++n) {
    const int at = static_cast<int>(threadIdx.x) + n * kRowNormThreads;
    if (at >= vectors) continue;
    Vector8 normal;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      normal.v[i] = RoundToBf16OnDevice(x[n].v[i] * scale) * weight[n].v[i];
    }
    StoreBf16(y, at, normal);
  }
}

// Calls body(std::integral_constant<int, n>) with the number of vectors that a row of d needs.
template <typename Body>
void WithRowVectors(std::int64_t d, Body body) {
  switch ((d / kVector + kRowNormThreads - 1) / kRowNormThreads) {
    case 1:
      return body(std::integral_constant<int, 1>());
    case 2:
      return body(std::integral_constant<int, 2>());
    case 3:
      return body(std::integral_constant<int, 3>());
    default:
      return body(std::integral_constant<int, 4>());
  }
}

}  // namespace penstock
