// Vectors of fp32 for the *_simd.cc sources, as wide as the instruction set that the source is
// compiled for. Every lane does the same arithmetic, tails included (they are padded with zeros),
// so an element's result never depends on its place. -ffp-contract=off: what is fused is written as
// MulAdd.
#pragma once

#include <immintrin.h>

#include <cstdint>

#define PENSTOCK_INLINE inline __attribute__((always_inline))

namespace penstock::PENSTOCK_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

using Vec = float __attribute__((vector_size(4 * kLanes)));
using IntVec = std::int32_t __attribute__((vector_size(4 * kLanes)));
using BitVec = std::uint32_t __attribute__((vector_size(4 * kLanes)));
using HalfVec = std::uint16_t __attribute__((vector_size(2 * kLanes)));

PENSTOCK_INLINE Vec Splat(float value) { return value - Vec{}; }

// a·b + c, rounded once where the instruction set can.
PENSTOCK_INLINE Vec MulAdd(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

// The larger; `b` where either is NaN.
PENSTOCK_INLINE Vec Max(Vec a, Vec b) {
#if defined(__AVX512F__)
  return (Vec)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (Vec)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return (Vec)_mm_max_ps((__m128)a, (__m128)b);
#endif
}

PENSTOCK_INLINE Vec Select(IntVec mask, Vec yes, Vec no) {
  return (Vec)(((IntVec)yes & mask) | ((IntVec)no & ~mask));
}

// Level by level of the tree that adds lanes: neighbours within each 4 lanes, then the 4-lane
// groups. Two vectors become one, so that kLanes vectors end as one vector of their sums, in order,
// by cheap shuffles.
PENSTOCK_INLINE Vec AddNeighbours(Vec a, Vec b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30) +
         __builtin_shufflevector(a, b, 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, 0, 2, 8, 10, 4, 6, 12, 14) +
         __builtin_shufflevector(a, b, 1, 3, 9, 11, 5, 7, 13, 15);
#else
  return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
}

PENSTOCK_INLINE Vec AddGroups(Vec a, Vec b) {
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
         __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11) +
         __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
#else
  return a + b;  // not called: a vector is one group
#endif
}

// Replaces N vectors (a multiple of kLanes) by their sums over lanes, in order, in the first N /
// kLanes of them. The tree is the same for each vector, whichever place it has. The loops are
// unrolled early, so that arrays dissolve into registers.
template <int N>
PENSTOCK_INLINE void SumLanes(Vec (&v)[N]) {
  static_assert(N % kLanes == 0 && N >= 4);
#pragma GCC unroll 16
  for (int i = 0; i < N / 2; ++i) v[i] = AddNeighbours(v[2 * i], v[2 * i + 1]);
#pragma GCC unroll 16
  for (int i = 0; i < N / 4; ++i) v[i] = AddNeighbours(v[2 * i], v[2 * i + 1]);
  if constexpr (kLanes >= 8) {
#pragma GCC unroll 16
    for (int i = 0; i < N / 8; ++i) v[i] = AddGroups(v[2 * i], v[2 * i + 1]);
  }
  if constexpr (kLanes >= 16) {
#pragma GCC unroll 16
    for (int i = 0; i < N / 16; ++i) v[i] = AddGroups(v[2 * i], v[2 * i + 1]);
  }
}

// The sum over lanes, by the same tree.
PENSTOCK_INLINE float SumLanes(Vec v) {
  v = AddNeighbours(v, v);
  v = AddNeighbours(v, v);
  for (int width = kLanes / 4; width > 1; width /= 2) v = AddGroups(v, v);
  return v[0];
}

PENSTOCK_INLINE float MaxLane(Vec v) {
  float max = v[0];
  for (int i = 1; i < kLanes; ++i) max = v[i] > max ? v[i] : max;
  return max;
}

}  // namespace
}  // namespace penstock::PENSTOCK_ISA
