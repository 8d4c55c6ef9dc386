// Products of many rows: cuBLAS, through ATen.
#pragma once

#include <cstdint>

#include "kernels/cuda_stream.h"
#include "kernels/element.h"

namespace penstock {

struct CublasProductArgs {
  const void* x = nullptr;       // [rows, n] bf16
  const void* weight = nullptr;  // [m, n] bf16
  std::int64_t rows = 0, n = 0, m = 0;
  Element y_element = Element::kBF16;  // bf16 or fp32: sums are rounded once
  const void* bias = nullptr;  // [m] bf16, added before sums are rounded; or null: of bf16 y
  void* y = nullptr;           // [rows, m], out
};

// y = x Wᵀ + bias. The order of sums follows from the shape alone. May be captured once it has run
// with the same stream before: the first call takes a workspace. Throws c10::Error.
void CublasProduct(const CublasProductArgs& args, CudaStream stream);

}  // namespace penstock
