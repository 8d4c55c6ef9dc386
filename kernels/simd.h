// Vectors of fp32 for the *_simd.cc sources, as wide as the instruction set that the source is
// compiled for. Every lane does the same arithmetic, tails included (they are padded with zeros),
// so an element's result never depends on its place. -ffp-contract=off: what is fused is written as
// MulAdd.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels/element.h"

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

// How one element type is read and written. Load widens to fp32 exactly, Store rounds to nearest
// even.
struct F32 {
  using Stored = float;
  static constexpr Element kElement = Element::kF32;
  static PENSTOCK_INLINE Vec Load(const float* from) {
    Vec v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
  }
  static PENSTOCK_INLINE void Store(float* to, Vec v) { __builtin_memcpy(to, &v, sizeof v); }
};

struct BF16 {
  using Stored = std::uint16_t;
  static constexpr Element kElement = Element::kBF16;
  static PENSTOCK_INLINE Vec Load(const std::uint16_t* from) {
    HalfVec half;
    __builtin_memcpy(&half, from, sizeof half);
    return (Vec)(__builtin_convertvector(half, BitVec) << 16);
  }
  static PENSTOCK_INLINE Vec RoundInPlace(Vec v) {
    const BitVec bits = (BitVec)v;
    const BitVec rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    const BitVec quiet = bits | 0x400000u;  // a NaN stays one: rounding could carry it to infinity
    const BitVec is_nan = (BitVec)(v != v);
    return (Vec)(((rounded & ~is_nan) | (quiet & is_nan)) & 0xffff0000u);
  }
  static PENSTOCK_INLINE void Store(std::uint16_t* to, Vec v) {
    const HalfVec half = __builtin_convertvector((BitVec)RoundInPlace(v) >> 16, HalfVec);
    __builtin_memcpy(to, &half, sizeof half);
  }
};

struct F16 {
  using Stored = std::uint16_t;
  static constexpr Element kElement = Element::kF16;
  static PENSTOCK_INLINE Vec Load(const std::uint16_t* from) {
    HalfVec half;
    __builtin_memcpy(&half, from, sizeof half);
#if defined(__AVX512F__)
    return (Vec)_mm512_cvtph_ps((__m256i)half);
#elif defined(__AVX2__)
    return (Vec)_mm256_cvtph_ps((__m128i)half);
#else
    // Exponent and mantissa shifted into place are the value times 2^-112, denormals included;
    // infinity and NaN have all exponent bits set and keep them.
    const BitVec bits = __builtin_convertvector(half, BitVec);
    const BitVec magnitude = (bits & 0x7fffu) << 13;
    const Vec scaled = (Vec)magnitude * Splat(0x1p112f);
    const BitVec special = (BitVec)(magnitude >= (BitVec{} + (0x7c00u << 13)));
    const BitVec value = ((BitVec)scaled & ~special) | ((magnitude | 0x7f800000u) & special);
    return (Vec)(value | ((bits & 0x8000u) << 16));
#endif
  }
  static PENSTOCK_INLINE void Store(std::uint16_t* to, Vec v) {
#if defined(__AVX512F__)
    const __m256i half = _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __builtin_memcpy(to, &half, sizeof half);
#elif defined(__AVX2__)
    const __m128i half = _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
    __builtin_memcpy(to, &half, sizeof half);
#else
    for (int i = 0; i < kLanes; ++i) to[i] = RoundOne(v[i]);
#endif
  }

 private:
  // Round to nearest even by integer arithmetic on the bits.
  static inline std::uint16_t RoundOne(float value) {
    std::uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    const std::uint32_t sign = (bits >> 16) & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
    if (bits >= 0x477ff000u)
      return static_cast<std::uint16_t>(sign | 0x7c00u);  // rounds to infinity
    if (bits <
        0x38800000u) {  // denormal in fp16: adding ½ aligns its last bit with fp32's, which rounds
      float magnitude;
      __builtin_memcpy(&magnitude, &bits, sizeof magnitude);
      magnitude += 0.5f;
      __builtin_memcpy(&bits, &magnitude, sizeof bits);
      return static_cast<std::uint16_t>(sign | (bits - 0x3f000000u));
    }
    bits += 0xfffu + ((bits >> 13) & 1u);
    return static_cast<std::uint16_t>(sign | ((bits - (112u << 23)) >> 13));
  }
};

// The first `count` < kLanes elements, zeros behind them.
template <typename E>
PENSTOCK_INLINE Vec LoadPartial(const typename E::Stored* from, int count) {
  typename E::Stored padded[kLanes] = {};
  for (int i = 0; i < count; ++i) padded[i] = from[i];
  return E::Load(padded);
}

template <typename E>
PENSTOCK_INLINE void StorePartial(typename E::Stored* to, Vec v, int count) {
  typename E::Stored padded[kLanes];
  E::Store(padded, v);
  for (int i = 0; i < count; ++i) to[i] = padded[i];
}

// How many of `left` remaining elements the next vector takes.
PENSTOCK_INLINE int Lanes(std::int64_t left) {
  return left < kLanes ? static_cast<int>(left) : kLanes;
}

template <typename E>
PENSTOCK_INLINE Vec LoadUpTo(const typename E::Stored* from, int count) {
  return count == kLanes ? E::Load(from) : LoadPartial<E>(from, count);
}

template <typename E>
PENSTOCK_INLINE void StoreUpTo(typename E::Stored* to, Vec v, int count) {
  if (count == kLanes) {
    E::Store(to, v);
  } else {
    StorePartial<E>(to, v, count);
  }
}

// Calls `function` with the type that stands for `element`.
template <typename Function>
PENSTOCK_INLINE void WithElement(Element element, Function function) {
  switch (element) {
    case Element::kF32:
      return function(F32{});
    case Element::kBF16:
      return function(BF16{});
    case Element::kF16:
      return function(F16{});
  }
}

// What a value becomes when it is stored as E and read again.
template <typename E>
PENSTOCK_INLINE Vec Round(Vec v) {
  if constexpr (E::kElement == Element::kF32) {
    return v;
  } else if constexpr (E::kElement == Element::kBF16) {
    return BF16::RoundInPlace(v);
  } else {
    typename E::Stored stored[kLanes];
    E::Store(stored, v);
    return E::Load(stored);
  }
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

// e^x, within 2 ulp; 0 below −87.3, +infinity above 88.7, NaN for NaN. Cody–Waite reduction by ln 2
// in two parts, then the Taylor polynomial of degree 7 on |r| ≤ ln 2 / 2, whose error is under
// 2^-26 of the value.
PENSTOCK_INLINE Vec Exp(Vec x) {
  const IntVec too_low = x<Splat(-87.33654f), too_high = x> Splat(88.72283f), nan = x != x;
  const Vec clamped = Select(too_low | too_high | nan, Vec{}, x);
  const Vec shifter = Splat(0x1.8p23f);  // adding it leaves the nearest integer in the low bits
  const Vec shifted = clamped * Splat(1.44269504f) + shifter;
  const Vec n = shifted - shifter;
  Vec r = MulAdd(n, Splat(-0.693145752f), clamped);
  r = MulAdd(n, Splat(-1.42860677e-6f), r);
  Vec p = Splat(1.0f / 5040);
  p = MulAdd(p, r, Splat(1.0f / 720));
  p = MulAdd(p, r, Splat(1.0f / 120));
  p = MulAdd(p, r, Splat(1.0f / 24));
  p = MulAdd(p, r, Splat(1.0f / 6));
  p = MulAdd(p, r, Splat(0.5f));
  p = MulAdd(p, r, Splat(1.0f));
  p = MulAdd(p, r, Splat(1.0f));
  // 2^n in two steps: n reaches 128, which one exponent field does not hold.
  const IntVec exponent = (IntVec)shifted - (IntVec)shifter, half = exponent >> 1;
  const Vec scale = (Vec)((half + 127) << 23), rest = (Vec)((exponent - half + 127) << 23);
  Vec result = p * scale * rest;
  result = Select(too_low, Vec{}, result);
  result = Select(too_high, Splat(__builtin_inff()), result);
  return Select(nan, x, result);
}

// ln x for finite x > 0, normal; within 2 ulp. x = 2^e m with m in [√½, √2): e ln 2 + 2 artanh((m −
// 1) / (m + 1)), by its series up to the ninth power.
PENSTOCK_INLINE Vec Log(Vec x) {
  const IntVec bits = (IntVec)x - 0x3f3504f3;  // of √½
  const IntVec e = bits >> 23;
  const Vec m = (Vec)((IntVec)x - (e << 23));
  const Vec s = (m - Splat(1.0f)) / (m + Splat(1.0f)), s2 = s * s;
  Vec p = Splat(2.0f / 9);
  p = MulAdd(p, s2, Splat(2.0f / 7));
  p = MulAdd(p, s2, Splat(2.0f / 5));
  p = MulAdd(p, s2, Splat(2.0f / 3));
  const Vec tail = p * s2 * s;
  const Vec n = __builtin_convertvector(e, Vec);
  const Vec low = MulAdd(n, Splat(-2.12194440e-4f), tail);  // ln 2 = 0.693359375 − 2.12194440e-4
  return MulAdd(n, Splat(0.693359375f), MulAdd(s, Splat(2.0f), low));
}

PENSTOCK_INLINE float Sqrt(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

// x · σ(x) = x / (1 + e^-x).
PENSTOCK_INLINE Vec Silu(Vec x) { return x / (Splat(1.0f) + Exp(-x)); }

}  // namespace
}  // namespace penstock::PENSTOCK_ISA
