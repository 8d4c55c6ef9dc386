// Rotary position embedding, pairs (i, i + hd/2) (Su et al., arXiv 2104.09864; Hugging Face's
// rotate_half).
#pragma once

#include <cstdint>

#include "kernels/element.h"

namespace penstock {

struct RopeTableArgs {
  Element element = Element::kF32;
  const std::int32_t* positions = nullptr;     // [rows]
  const float* inverse_frequencies = nullptr;  // [half]: θ^(−2i/hd)
  std::int64_t half = 0;                       // hd / 2
  float* cos = nullptr;                        // [rows, half], out, rounded to `element`
  float* sin = nullptr;                        // [rows, half], out, rounded to `element`
};

// Rows first … last − 1 of the tables: the angle is the fp32 product of position and inverse
// frequency.
void RopeTableCpu(const RopeTableArgs& args, std::int64_t first, std::int64_t last);

struct RopeArgs {
  Element element = Element::kF32;
  void* x = nullptr;  // [rows, heads, 2 · half], in and out
  std::int64_t heads = 0;
  std::int64_t half = 0;
  const float* cos = nullptr;  // [rows, half]
  const float* sin = nullptr;  // [rows, half]
};

// Rows first … last − 1: x = M(M(x · cos) + M(rotate_half(x) · sin)); M rounds to `element`.
void RopeCpu(const RopeArgs& args, std::int64_t first, std::int64_t last);

}  // namespace penstock
