// How RouteRows lays out its scratch: what blocks hand to each other within the kernel.
#pragma once

#include <cstdint>

#include "kernels/route_plan.cuh"

namespace penstock {

// Rows of a launch, at most.
inline constexpr std::int64_t kMaxRouteRows = 16384;

// Zeros come first, as much whatever the launch: launches of different sizes share a scratch.
struct RouteScratch {
  std::int32_t* decided;  // [1]: segments that are done with
  std::int32_t* arrived;  // [segments]: pieces that are done with
  std::uint32_t* chosen;  // [E, words]: bit r of an expert's words: row r has it
  float* first;           // [max_rows, columns]: outputs of the first product
  float* modulated;       // [slices, max_rows, E]: parts of the modulated logits
  std::int64_t columns, words;

  __host__ __device__ RouteScratch(const RouteShape& shape, void* memory)
      : columns((shape.experts + 1 + shape.max_hidden + 3) / 4 * 4), words(kMaxRouteRows / 32) {
    const std::int64_t slices = (shape.d + kSliceWidth - 1) / kSliceWidth;
    decided = static_cast<std::int32_t*>(memory);
    arrived = decided + 4;
    chosen = reinterpret_cast<std::uint32_t*>(
        arrived + (kMaxRouteRows / kSegmentRows + shape.max_routers + 3) / 4 * 4);
    first = reinterpret_cast<float*>(chosen + (shape.experts * words + 3) / 4 * 4);
    modulated = first + shape.max_rows * columns;
    end = modulated + slices * shape.max_rows * shape.experts;
  }
  float* end;
};

}  // namespace penstock
