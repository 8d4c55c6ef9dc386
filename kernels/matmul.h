// y = x Wᵀ + b, the product of a linear layer, with rows that do not depend on each other: what a
// row gets never depends, to the bit, on the other rows, on their number, on its place, or on how
// the work is split over threads. BLAS libraries choose the order of sums by the number of rows, so
// a server that batches freely cannot use them where that must not show.
#pragma once

#include <cstdint>

#include "kernels/element.h"

namespace penstock {

struct MatMulArgs {
  Element element = Element::kF32;  // of x, weight and bias
  const void* x = nullptr;          // [·, n], rows x_stride apart
  std::int64_t x_stride = 0;        // elements
  const std::int32_t* rows =
      nullptr;  // [num_rows] row of x that each output row takes; null: 0, 1, 2, …
  std::int64_t num_rows = 0;
  const void* weight = nullptr;       // [m, n], dense
  const void* bias = nullptr;         // [m]; null: none
  std::int64_t n = 0;                 // inputs
  std::int64_t m = 0;                 // outputs
  Element y_element = Element::kF32;  // of y: each sum is rounded once
  void* y = nullptr;                  // [num_rows, m], rows y_stride apart
  std::int64_t y_stride = 0;          // elements
};

// Columns first … last − 1 of y. Splitting them over threads at any border leaves the bits as they
// are; multiples of kMatMulColumns are fastest. Sums in fp32: lane l of the vector adds the
// products at i ≡ l in rising order of i, then lanes are added pairwise, then the bias. For bf16 on
// AVX512_BF16 a lane adds two neighbouring products at a time (denormals count as zero).
void MatMulCpu(const MatMulArgs& args, std::int64_t first, std::int64_t last);

inline constexpr std::int64_t kMatMulColumns = 16;

}  // namespace penstock
