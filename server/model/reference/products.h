// Groups of matrix products and feed-forward layers, shared out over threads. Results don't depend
// on how.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/matmul.h"
#include "server/model/checkpoint/checkpoint.h"
#include "server/model/reference/host_buffer.h"

namespace penstock {

// y = x Wᵀ + b in the model's dtype. x and y are dense, [·, n] and [·, m].
MatMulArgs Product(Element element, const void* x, std::int64_t rows, const TensorView& weight,
                   void* y);

// Runs all of them as one pool of work. Their outputs must not overlap.
void RunProducts(const std::vector<MatMulArgs>& products);

// The first half of a gated feed-forward layer: y = silu(gate x) ⊙ up x.
struct GatedProduct {
  MatMulArgs gate;                  // its `weight` is the gate's; `y` is y [rows, width]
  const void* up_weight = nullptr;  // [width, n]
};

// Runs all of them as one pool of work. `scratch` grows to one for each worker.
void RunGatedProducts(const std::vector<GatedProduct>& products, std::vector<Scratch>& scratch);

}  // namespace penstock
