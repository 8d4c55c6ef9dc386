// How PlanRoutes lays out a step's rows by router, and the pieces of work that follow from it.
#pragma once

#include <cstdint>

#include "kernels/route_rows.h"

namespace penstock {

inline constexpr int kSegmentRows = 16;  // rows of one router that share a reading of its weights
inline constexpr int kTileColumns = 16;  // outputs of one piece of the first product
inline constexpr int kGatePiece = 0;     // of the first product: the shared expert's gate
inline constexpr int kSliceWidth = 64;   // dimensions of one piece of the modulated product
// Launches for so many rows have kernels of their own for what all rows need (route_direct.cuh,
// list_experts.cuh).
inline constexpr std::int64_t kRowsRoutedApart = 1024;

// Rows of one router, rising.
struct RouteSegment {
  std::int32_t router, count;
  std::int32_t columns;  // of the first product: direct [E], first [h]
  // Pieces of the first product: the shared gate, then 16 columns each; 0: done by RouteDirect.
  std::int32_t tiles;
  std::int32_t slices;  // pieces of the modulated product, after the tiles
  std::int32_t rows[kSegmentRows];
};

enum class RoutePhase : std::int32_t { kFirst, kModulated, kDecide };

struct RouteItem {
  std::int32_t segment, router;
  std::int32_t piece;
  RoutePhase phase;
};

struct RoutePlanLayout {
  std::int32_t* num_segments;  // [1]
  std::int32_t* num_items;     // [1]: by phase, then by segment
  RouteSegment* segments;      // [max_segments]
  RouteItem* items;            // [max_items]

  __host__ __device__ RoutePlanLayout(const RouteShape& shape, const RoutePlan& plan)
      : num_segments(static_cast<std::int32_t*>(plan.memory)),
        num_items(num_segments + 1),
        segments(reinterpret_cast<RouteSegment*>(num_segments + 4)),
        items(reinterpret_cast<RouteItem*>(segments + (MaxSegments(shape) + 1) / 2 * 2)) {}

  __host__ __device__ static std::int64_t MaxSegments(const RouteShape& shape) {
    return shape.max_rows / kSegmentRows + shape.max_routers;
  }
  // One for each block besides: a block reads its first item before it knows whether it has one.
  __host__ __device__ static std::int64_t MaxItems(const RouteShape& shape) {
    constexpr std::int64_t kMaxBlocks = 512;
    const std::int64_t columns = shape.experts + shape.max_hidden;
    return kMaxBlocks + MaxSegments(shape) * ((columns + kTileColumns - 1) / kTileColumns +
                                              (shape.d + kSliceWidth - 1) / kSliceWidth + 2);
  }
};

}  // namespace penstock
