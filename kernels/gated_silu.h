// The activation of a gated feed-forward layer: silu(gate) · up (Shazeer, arXiv 2002.05202).
#pragma once

#include <cstdint>

#include "kernels/element.h"

namespace penstock {

struct GatedSiluArgs {
  Element element = Element::kF32;
  const void* gate = nullptr;  // [rows, width], rows stride apart
  const void* up = nullptr;    // [rows, width], rows stride apart
  std::int64_t stride = 0;     // elements
  void* y = nullptr;           // [rows, width], rows y_stride apart
  std::int64_t y_stride = 0;   // elements
  std::int64_t width = 0;
};

// Rows first … last − 1: y = M(M(silu(gate)) · up), fp32 inside; M rounds to `element`.
void GatedSiluCpu(const GatedSiluArgs& args, std::int64_t first, std::int64_t last);

}  // namespace penstock
