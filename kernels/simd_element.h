// Element types for the *_simd.cc sources: how each is read into a vector and written back.
#pragma once

#include <cstdint>

#include "kernels/element.h"
#include "kernels/simd.h"

namespace penstock::PENSTOCK_ISA {
namespace {

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

}  // namespace
}  // namespace penstock::PENSTOCK_ISA
