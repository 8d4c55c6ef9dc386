#include "kernels/shadow_routes.h"

#include <algorithm>
#include <cstdint>

#include "kernels/plan_shadows.h"
#include "kernels/route_rows.h"

namespace penstock {
namespace {

RouteShape RoutesOf(const ShadowShape& shape) {
  return {.max_rows = shape.max_rows,
          .max_routers = shape.max_layers,
          .max_hidden = shape.max_hidden,
          .d = shape.d,
          .experts = shape.experts,
          .k = shape.k};
}

// Zeros come first; the rest is written before it is read.
struct ShadowScratch {
  char* routes;
  char* plans;               // [routers, plan_bytes]
  std::int32_t* tokens;      // [max_rows]
  std::int32_t* failed;      // [routers, max_rows]
  std::int32_t* expert_ids;  // [routers, max_rows, k]
  float* weights;            // [max_rows, k]: nobody reads them
  float* logits;             // [routers, max_rows, E]
  char* end;
  std::size_t plan_bytes;

  ShadowScratch(const ShadowShape& shape, void* memory)
      : end(static_cast<char*>(memory)), plan_bytes(Aligned(RoutePlanBytes(RoutesOf(shape)))) {
    routes = Take<char>(RouteScratchBytes(RoutesOf(shape)));
    const auto rows = static_cast<std::size_t>(shape.max_rows),
               routers = static_cast<std::size_t>(shape.max_routers),
               k = static_cast<std::size_t>(shape.k),
               experts = static_cast<std::size_t>(shape.experts);
    plans = Take<char>(routers * plan_bytes);
    tokens = Take<std::int32_t>(rows);
    failed = Take<std::int32_t>(routers * rows);
    expert_ids = Take<std::int32_t>(routers * rows * k);
    weights = Take<float>(rows * k);
    logits = Take<float>(routers * rows * experts);
  }

 private:
  static std::size_t Aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }
  template <typename T>
  T* Take(std::size_t count) {
    char* start = end;
    end += Aligned(count * sizeof(T));
    return reinterpret_cast<T*>(start);
  }
};

// `layers` layers from `first` on, as many as a launch takes.
void RouteLayers(const ShadowRoutesArgs& args, const ShadowScratch& scratch, std::int64_t first,
                 std::int64_t layers, CudaStream stream) {
  const ShadowShape& shape = args.shape;
  const std::int64_t pairs = std::int64_t{args.routers.num_serving} * args.routers.num_routers;
  ShadowRouters routers = args.routers;
  for (int i = 0; i < routers.num_routers; ++i) {
    routers.routers[i].programs += first * args.program_stride;
  }
  PlanShadowsCuda({.shape = RoutesOf(shape),
                   .layers = layers,
                   .rows = args.rows,
                   .routers = routers,
                   .program_stride = args.program_stride,
                   .num_rows = args.num_rows,
                   .row_routers = args.row_routers,
                   .counted = args.counted,
                   .token_ids = args.token_ids,
                   .plans = {scratch.plans},
                   .plan_bytes = scratch.plan_bytes,
                   .layer_tokens = scratch.tokens},
                  stream);
  // −1 everywhere. It overlaps with nothing, so the plans are there for all that follows.
  cudaMemsetAsync(
      scratch.failed, 0xff,
      static_cast<std::size_t>(routers.num_routers * shape.max_rows) * sizeof(std::int32_t),
      stream);
  for (int i = 0; i < routers.num_routers; ++i) {
    const std::int64_t router_rows = i * shape.max_rows;
    RouteRowsCuda({.shape = RoutesOf(shape),
                   .plan = {scratch.plans + scratch.plan_bytes * static_cast<std::size_t>(i)},
                   .num_rows = args.num_rows,
                   .row_routers = args.row_routers,
                   .counted = args.counted,
                   .token_ids = scratch.tokens,
                   .x = static_cast<const char*>(args.x) + 2 * first * args.rows * shape.d,
                   .programs = routers.routers[i].programs,
                   .scratch = scratch.routes,
                   .expert_ids = scratch.expert_ids + router_rows * shape.k,
                   .weights = scratch.weights,
                   .failed_layer = scratch.failed + router_rows,
                   .logits = scratch.logits + router_rows * shape.experts},
                  stream);
  }
  CompareRoutesCuda({.layers = layers,
                     .rows = args.rows,
                     .experts = shape.experts,
                     .k = shape.k,
                     .routers = routers,
                     .num_rows = args.num_rows,
                     .row_routers = args.row_routers,
                     .counted = args.counted,
                     .failed_layer = args.failed_layer,
                     .first_layer = args.first_layer + static_cast<std::int32_t>(first),
                     .served = args.served + first * args.served_rows * shape.k,
                     .served_rows = args.served_rows,
                     .router_rows = shape.max_rows,
                     .expert_ids = scratch.expert_ids,
                     .logits = scratch.logits,
                     .failed = scratch.failed,
                     .agreements = args.agreements + first * pairs,
                     .expert_rows = args.expert_rows + first * pairs * shape.experts},
                    stream);
}

}  // namespace

std::size_t ShadowScratchBytes(const ShadowShape& shape) {
  return reinterpret_cast<std::size_t>(ShadowScratch(shape, nullptr).end);
}

void ShadowRoutesCuda(const ShadowRoutesArgs& args, CudaStream stream) {
  if (args.rows == 0) return;
  const ShadowScratch scratch(args.shape, args.scratch);
  const std::int64_t together =
      std::clamp<std::int64_t>(args.shape.max_rows / args.rows, 1, args.shape.max_layers);
  for (std::int64_t first = 0; first < args.layers; first += together) {
    RouteLayers(args, scratch, first, std::min(together, args.layers - first), stream);
  }
}

}  // namespace penstock
