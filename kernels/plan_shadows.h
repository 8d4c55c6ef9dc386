// The pieces of work of shadow routing: for every router a plan of RouteRows over all layers of a
// launch.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/compare_routes.h"
#include "kernels/route_rows.h"

namespace penstock {

// Device pointers. Row r of layer l stands at row l · rows + r of a plan, and has descriptor
// l · program_stride, counted from the router's own.
struct PlanShadowsArgs {
  RouteShape shape = {};    // of RouteRows' launches; its max_routers: layers, at most
  std::int64_t layers = 0;  // of this launch
  std::int64_t rows = 0;
  ShadowRouters routers;
  std::int64_t program_stride = 0;
  const std::int32_t* num_rows = nullptr;     // [1]
  const std::int32_t* row_routers = nullptr;  // [rows]
  const std::uint8_t* counted = nullptr;      // [rows]
  const std::int32_t* token_ids = nullptr;    // [rows]

  RoutePlan plans = {};                  // out: [routers], plan_bytes after each other
  std::size_t plan_bytes = 0;            // multiple of 16, at least RoutePlanBytes
  std::int32_t* layer_tokens = nullptr;  // [layers · rows], out: token_ids, once for each layer
};

// To be followed by something that overlaps with nothing before it: RouteRows reads its plan
// without waiting.
void PlanShadowsCuda(const PlanShadowsArgs& args, CudaStream stream);

}  // namespace penstock
