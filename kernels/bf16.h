// bfloat16 in memory, one value at a time, for CPU twins of kernels that know no other element.
#pragma once

#include <bit>
#include <cstdint>

namespace penstock {

inline float FloatOfBf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

// To nearest, ties to even; a NaN stays one.
inline std::uint16_t Bf16OfFloat(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (value != value) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline float RoundToBf16(float value) { return FloatOfBf16(Bf16OfFloat(value)); }

}  // namespace penstock
