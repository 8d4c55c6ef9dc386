// From a row's logits to its experts: one warp, every lane holding experts lane, lane + 32, …
#pragma once

#include <cstdint>

#include "kernels/route_rows.h"
#include "kernels/row_vectors.cuh"

namespace penstock {

// What routers' measures count of a row.
struct RouteMeasures {
  float entropy = 0, mass = 0;
};

// Lane i holds choice i.
struct RouteChoice {
  std::int32_t expert = 0;
  float weight = 0;
  bool finite = true;
  RouteMeasures measures;
};

// Bits that are ordered as the numbers are; −0 as 0.
__device__ __forceinline__ std::uint32_t OrderedBits(float value) {
  const std::uint32_t bits = __float_as_uint(value + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Softmax, the k largest, their weights. logits: [experts] in shared memory, up to 32 · kPerLane;
// probabilities (or null) go to global memory.
template <int kPerLane>
__device__ __forceinline__ RouteChoice DecideByLogits(const float* logits, int experts, int k,
                                                      bool normalize, float* probabilities) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float z[kPerLane], p[kPerLane];
  bool finite = true;
  float highest = -INFINITY;
#pragma unroll
  for (int n = 0; n < kPerLane; ++n) {
    const int expert = lane + 32 * n;
    z[n] = expert < experts ? logits[expert] : -INFINITY;
    if (expert < experts) finite = finite && isfinite(z[n]);
    highest = fmaxf(highest, z[n]);
  }
  RouteChoice choice;
  choice.finite = __all_sync(~0u, finite);
  if (!choice.finite) {
    choice.expert = lane;
    for (int e = lane; e < experts && probabilities != nullptr; e += 32) probabilities[e] = 0;
    return choice;
  }
  highest = WarpMax(highest);
  float sum = 0;
#pragma unroll
  for (int n = 0; n < kPerLane; ++n) {
    p[n] = lane + 32 * n < experts ? expf(z[n] - highest) : 0;
    sum += p[n];
  }
  sum = WarpSum(sum);
#pragma unroll
  for (int n = 0; n < kPerLane; ++n) {
    p[n] /= sum;
    // Below the normal range p ln p is under 1e-36: zero.
    if (p[n] >= 0x1p-126f) choice.measures.entropy -= p[n] * logf(p[n]);
    if (probabilities != nullptr && lane + 32 * n < experts) probabilities[lane + 32 * n] = p[n];
  }
  choice.measures.entropy = WarpSum(choice.measures.entropy);
  std::uint32_t keys[kPerLane];  // 0: not there, or taken
#pragma unroll
  for (int n = 0; n < kPerLane; ++n) keys[n] = lane + 32 * n < experts ? OrderedBits(z[n]) : 0;
  for (int rank = 0; rank < k; ++rank) {
    std::uint32_t best = 0;
#pragma unroll
    for (int n = 0; n < kPerLane; ++n) best = max(best, keys[n]);
    best = __reduce_max_sync(~0u, best);
    unsigned index = ~0u;
#pragma unroll
    for (int n = kPerLane - 1; n >= 0; --n) {
      if (keys[n] == best) index = static_cast<unsigned>(lane + 32 * n);
    }
    index = __reduce_min_sync(~0u, index);
    float weight = 0;
#pragma unroll
    for (int n = 0; n < kPerLane; ++n) {
      if (static_cast<unsigned>(lane + 32 * n) != index) continue;
      weight = p[n];
      keys[n] = 0;
    }
    weight = __shfl_sync(~0u, weight, static_cast<int>(index % 32));
    choice.measures.mass += weight;
    if (lane == rank) {
      choice.expert = static_cast<std::int32_t>(index);
      choice.weight = weight;
    }
  }
  if (normalize) choice.weight /= choice.measures.mass;
  return choice;
}

// The token's experts, with equal weights that sum to `mass`, or to 1.
__device__ __forceinline__ RouteChoice DecideByTable(const RouterProgram& program,
                                                     std::int32_t token, int experts, int k,
                                                     bool normalize, float* probabilities) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  RouteChoice choice;
  choice.finite = token >= 0 && token < program.vocab;
  choice.expert = lane;
  if (choice.finite && lane < k) {
    choice.expert = __ldg(program.table + std::int64_t{token} * k + lane);
  }
  const float share = 1.0f / static_cast<float>(k);
  if (probabilities != nullptr) {
    for (int e = lane; e < experts; e += 32) probabilities[e] = 0;
    __syncwarp();
    if (choice.finite && lane < k) probabilities[choice.expert] = share;
  }
  if (!choice.finite) return choice;
  choice.weight = normalize ? share : program.mass / static_cast<float>(k);
  choice.measures = {logf(static_cast<float>(k)), normalize ? 1.0f : program.mass};
  return choice;
}

}  // namespace penstock
