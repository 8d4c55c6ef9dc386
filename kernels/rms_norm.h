// Root-mean-square normalization, with the residual addition before it (Zhang & Sennrich, arXiv
// 1910.07467; rounding as Hugging Face's Qwen2MoeRMSNorm).
#pragma once

#include <cstdint>

#include "kernels/element.h"

namespace penstock {

struct RmsNormArgs {
  Element element = Element::kF32;
  void* x = nullptr;             // [rows, d]; with `delta` also written
  const void* delta = nullptr;   // [rows, d], added to x first: x = M(x + delta); null: none
  const void* weight = nullptr;  // [d]
  void* y = nullptr;             // [rows, d], out; may not overlap x
  std::int64_t d = 0;
  float epsilon = 0;
};

// Rows first … last − 1: y = M(weight · M(x / √(mean(x²) + ε))), fp32 inside; M rounds to
// `element`.
void RmsNormCpu(const RmsNormArgs& args, std::int64_t first, std::int64_t last);

}  // namespace penstock
