// Residual addition and root-mean-square norm, between a layer's halves (Zhang & Sennrich, arXiv
// 1910.07467; rounding as Hugging Face's Qwen2MoeRMSNorm and as kernels/rms_norm.h).
#pragma once

#include <cstdint>

#include "kernels/cuda_stream.h"

namespace penstock {

// Device pointers; rows from *num_rows on are padding. M rounds to bf16.
struct ResidualNormArgs {
  const std::int32_t* num_rows = nullptr;  // [1]
  std::int64_t max_rows = 0;               // of the launch
  void* x = nullptr;                       // [rows, d] bf16: the residual stream, in and out
  // What is added to x first: M(Σ parts), or a product's rounded result, or (both null) nothing.
  const float* delta_parts = nullptr;  // [parts, part_rows, d] fp32, added in order of part
  std::int64_t parts = 0;              // 1 to 8
  std::int64_t part_rows = 0;          // rows between parts
  const void* delta = nullptr;         // [rows, d] bf16
  const void* weight = nullptr;        // [d] bf16
  float epsilon = 0;
  std::int64_t d = 0;  // multiple of 8, at most 8,192
  void* y = nullptr;   // [rows, d] bf16, out; may not overlap x
  // [1] or null: risen by max_rows when y is there, for a kernel that begins before this one's
  // successor has ended (expert_products.h).
  std::int32_t* ready = nullptr;
};

// x = M(x + M(delta)); y = M(weight · M(x / √(mean(x²) + ε))).
void ResidualNormCpu(const ResidualNormArgs& args);
void ResidualNormCuda(const ResidualNormArgs& args, CudaStream stream);

}  // namespace penstock
