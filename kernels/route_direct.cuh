// Logits of many rows under routers that are one bf16 product, and their shared experts' gates: as
// RouteRows computes them, to the bit, with the weights read once for two segments.
#pragma once

#include "kernels/route_plan.cuh"

namespace penstock {

// The outputs of one pass: experts and the shared gate.
inline constexpr int kDirectColumns = 64;

// Whether launches of this shape compute such segments apart (RouteSegment::tiles 0).
__host__ __device__ constexpr bool RoutesDirectApart(const RouteShape& shape) {
  return shape.max_rows >= kRowsRoutedApart && shape.experts < kDirectColumns;
}

// Writes direct logits into the scratch, and shared_gate_logits. Before RouteRows.
void RouteDirectCuda(const RouteRowsArgs& args, CudaStream stream);

}  // namespace penstock
