// A block for each router and layer: it finds the router's rows, which are the same in all layers,
// and writes the layer's segments and items to places that follow from their number.
#include "kernels/plan_shadows.h"

#include "kernels/cuda_launch.cuh"
#include "kernels/route_plan.cuh"

namespace penstock {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// Whether `router` has to decide for the row: it is asked, or serves it.
__device__ bool Decides(const PlanShadowsArgs& args, int router, int row) {
  if (args.counted[row] == 0) return false;
  const std::int32_t serving = args.row_routers[row];
  for (int i = 0; i < args.routers.num_serving; ++i) {
    if (args.routers.routers[i].serves != serving) continue;
    return i == router || (args.routers.routers[router].asked_of >> i & 1u) != 0;
  }
  return false;
}

__global__ void __launch_bounds__(kThreads)
    PlanShadows(const __grid_constant__ PlanShadowsArgs args) {
  __shared__ int warp_rows[kWarps];
  const int router = static_cast<int>(blockIdx.x), layer = static_cast<int>(blockIdx.y),
            layers = static_cast<int>(args.layers);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int num_rows = *args.num_rows, first_row = layer * static_cast<int>(args.rows);
  const RoutePlanLayout plan(args.shape, {static_cast<char*>(args.plans.memory) +
                                          args.plan_bytes * static_cast<std::size_t>(router)});

  // How many rows there are says where this layer's segments begin.
  int count = 0;
  for (int row = static_cast<int>(threadIdx.x); row < num_rows; row += kThreads) {
    count += Decides(args, router, row) ? 1 : 0;
  }
  count = __reduce_add_sync(~0u, count);
  if (lane == 0) warp_rows[warp] = count;
  __syncthreads();
  count = 0;
  for (const int own : warp_rows) count += own;
  const int segments = (count + kSegmentRows - 1) / kSegmentRows;
  RouteSegment* const own = plan.segments + layer * segments;

  int ranks = 0;  // rows of the router before
  for (int first = 0; first < num_rows; first += kThreads) {
    const int row = first + static_cast<int>(threadIdx.x);
    const bool decides = row < num_rows && Decides(args, router, row);
    const unsigned mask = __ballot_sync(~0u, decides);
    __syncthreads();  // warp_rows has been read
    if (lane == 0) warp_rows[warp] = __popc(mask);
    __syncthreads();
    int rank = ranks + __popc(mask & ((1u << lane) - 1));
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) rank += warp_rows[w];
      ranks += warp_rows[w];
    }
    if (decides) own[rank / kSegmentRows].rows[rank % kSegmentRows] = first_row + row;
    if (router == 0 && row < num_rows) args.layer_tokens[first_row + row] = args.token_ids[row];
  }

  const RouterProgram& program = *args.routers.routers[router].programs;
  const int d = static_cast<int>(args.shape.d);
  const int columns = (program.direct != nullptr ? static_cast<int>(args.shape.experts) : 0) +
                      (program.first != nullptr ? program.hidden : 0);
  const int tiles = 1 + (columns + kTileColumns - 1) / kTileColumns;
  const int slices =
      program.form == HiddenForm::kModulated ? (d + kSliceWidth - 1) / kSliceWidth : 0;
  const int descriptor = layer * static_cast<int>(args.program_stride);
  const int all = layers * segments;
  for (int i = static_cast<int>(threadIdx.x); i < segments; i += kThreads) {
    own[i].router = descriptor;
    own[i].count = min(kSegmentRows, count - i * kSegmentRows);
    own[i].columns = columns;
    own[i].tiles = tiles;
    own[i].slices = slices;
    const int segment = layer * segments + i;
    plan.items[all * (tiles + slices) + segment] = {segment, descriptor, 0, RoutePhase::kDecide};
  }
  for (int i = static_cast<int>(threadIdx.x); i < segments * tiles; i += kThreads) {
    const int segment = layer * segments + i / tiles;
    plan.items[layer * segments * tiles + i] = {segment, descriptor, i % tiles, RoutePhase::kFirst};
  }
  for (int i = static_cast<int>(threadIdx.x); i < segments * slices; i += kThreads) {
    const int segment = layer * segments + i / slices;
    plan.items[all * tiles + layer * segments * slices + i] = {segment, descriptor, i % slices,
                                                               RoutePhase::kModulated};
  }
  if (layer == 0 && threadIdx.x == 0) {
    *plan.num_segments = all;
    *plan.num_items = all * (tiles + slices + 1);
  }
}

}  // namespace

void PlanShadowsCuda(const PlanShadowsArgs& args, CudaStream stream) {
  const dim3 blocks(static_cast<unsigned>(args.routers.num_routers),
                    static_cast<unsigned>(args.layers));
  Launch(PlanShadows, blocks, kThreads, 0, Overlap::kNone, stream, args);
}

}  // namespace penstock
