// y = x Wᵀ for few rows: the products of a layer that every row passes (QKV, O, lm_head), bound by
// reading W.
#pragma once

#include <cstdint>

#include "kernels/cuda_stream.h"
#include "kernels/element.h"
#include "kernels/tile_map.h"

namespace penstock {

struct DenseProductArgs {
  const void* x = nullptr;              // bf16 [rows, n]
  const void* weight = nullptr;         // bf16 [m, n]
  const TileMap* weight_map = nullptr;  // MakeTileMap(weight, 1, m, n); null: the copy engine stays
                                        // unused, for shapes that it cannot read
  std::int64_t rows = 0;                // any number; made for 1 to 256
  std::int64_t n = 0;                   // inputs
  std::int64_t m = 0;                   // outputs
  // Part s of y sums inputs s·c … (s + 1)·c − 1, where c is n / splits rounded up to a multiple of
  // 64: more tiles where m alone gives too few. y = Σ_s, added by whoever reads it, in order of s.
  std::int64_t splits = 1;
  Element y_element = Element::kF32;  // kF32 or kBF16: each sum is rounded once
  void* y = nullptr;                  // [splits, rows, m], out
};

// The columns that one part sums.
std::int64_t DenseProductPart(const DenseProductArgs& args);

void DenseProductCpu(const DenseProductArgs& args);

// A row's bits do not depend on `rows` nor on the other rows.
void DenseProductCuda(const DenseProductArgs& args, CudaStream stream);

}  // namespace penstock
