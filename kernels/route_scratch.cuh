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
  std::int32_t* before;   // [E, words]: rows that an expert has before each word, of large steps
  float* direct;          // [max_rows, E]: M(direct · x)
  float* hidden;          // [max_rows, hidden_stride]: the activated hidden layer
  float* modulated;       // [slices, max_rows, E]: parts of the modulated logits
  std::int64_t hidden_stride, words;

  __host__ __device__ RouteScratch(const RouteShape& shape, void* memory)
      : hidden_stride((shape.max_hidden + 7) / 8 * 8), words(kMaxRouteRows / 32) {
    const std::int64_t slices = (shape.d + kSliceWidth - 1) / kSliceWidth;
    decided = static_cast<std::int32_t*>(memory);
    arrived = decided + 4;
    chosen = reinterpret_cast<std::uint32_t*>(
        arrived + (kMaxRouteRows / kSegmentRows + shape.max_routers + 3) / 4 * 4);
    before = reinterpret_cast<std::int32_t*>(chosen + (shape.experts * words + 3) / 4 * 4);
    hidden = reinterpret_cast<float*>(before + (shape.experts * words + 3) / 4 * 4);
    direct = hidden + shape.max_rows * hidden_stride;
    modulated = direct + shape.max_rows * shape.experts;
    end = modulated + slices * shape.max_rows * shape.experts;
  }
  float* end;
};

}  // namespace penstock
