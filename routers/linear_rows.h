// Matrix products whose rows do not depend on each other, to the bit. A BLAS picks its blocking,
// and with it the order of sums, by the number of rows; a server that batches freely must not let
// that show.
#pragma once

#include <cstdint>

#include "ATen/core/Tensor.h"
#include "c10/core/ScalarType.h"

namespace penstock {

enum class RowMode {
  kNative,  // one product over all rows, whatever order the library chooses
  // The same order of sums for any row. On a CPU, in fp32, bf16 and fp16: kernels/matmul.h, which
  // sums in fp32, rounds once and pads nothing. Elsewhere: the library's products of exactly
  // kTileRows rows each, the last one padded.
  kTiled,
};

// Rows of one tile.
inline constexpr int kTileRows = 8;

// x W^T. x: [rows, n]; weight: [m, n], same dtype → [rows, m], same dtype. rows may be 0.
// Differentiable; the result is the same with and without gradients, to the bit.
at::Tensor LinearRows(const at::Tensor& x, const at::Tensor& weight, RowMode mode);

// The start-up self-test: whether native products of random rows with a weight of this shape and
// dtype give each row the same bits at every row count tried (1 to 65, and some more) and at every
// place as alone. Costs a few products, fewer counts for weights of over 2^24 elements; the caller
// caches the answer.
bool NativeProductsAreRowInvariant(std::int64_t m, std::int64_t n, at::ScalarType dtype);

}  // namespace penstock
