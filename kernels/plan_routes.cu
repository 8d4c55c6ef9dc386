#include "kernels/cuda_launch.cuh"
#include "kernels/route_direct.cuh"

namespace penstock {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;

// Calls body(row, rank) in every lane that holds a row of the router, in rising order of rows; rank
// counts them. A warp's work. Returns their number.
template <typename Body>
__device__ int ForRowsOf(int router, const std::int32_t* row_routers, int num_rows, Body body) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  int rank = 0;
  for (int first = 0; first < num_rows; first += 32) {
    const int row = first + lane;
    const bool own = row < num_rows && row_routers[row] == router;
    const unsigned mask = __ballot_sync(~0u, own);
    if (own) body(row, rank + __popc(mask & ((1u << lane) - 1)));
    rank += __popc(mask);
  }
  return rank;
}

// `starts`: [max_routers + 1].
__global__ void __launch_bounds__(kThreads) PlanRoutes(PlanRoutesArgs args) {
  extern __shared__ std::int32_t starts[];
  __shared__ std::int32_t num_items;
  const RoutePlanLayout plan(args.shape, args.plan);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int num_rows = *args.num_rows, routers = static_cast<int>(args.shape.max_routers);
  const int experts = static_cast<int>(args.shape.experts);

  for (int router = warp; router < routers; router += kWarps) {
    const int count = ForRowsOf(router, args.row_routers, num_rows, [](int, int) {});
    if (lane == 0) starts[router + 1] = (count + kSegmentRows - 1) / kSegmentRows;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    starts[0] = 0;
    for (int router = 0; router < routers; ++router) starts[router + 1] += starts[router];
    num_items = 0;
    *plan.num_segments = starts[routers];
  }
  __syncthreads();
  for (int router = warp; router < routers; router += kWarps) {
    const int segments = starts[router + 1] - starts[router];
    if (segments == 0) continue;
    RouteSegment* own = plan.segments + starts[router];
    const int count = ForRowsOf(router, args.row_routers, num_rows, [own](int row, int rank) {
      own[rank / kSegmentRows].rows[rank % kSegmentRows] = row;
    });
    const RouterProgram& program = args.programs[router];
    const int columns =
        (program.direct != nullptr ? experts : 0) + (program.first != nullptr ? program.hidden : 0);
    const bool modulated = program.form == HiddenForm::kModulated;
    const bool apart = RoutesDirectApart(args.shape) && program.direct != nullptr &&
                       program.first == nullptr && program.element == Element::kBF16;
    for (int i = lane; i < segments; i += 32) {
      own[i].router = router;
      own[i].count = min(kSegmentRows, count - i * kSegmentRows);
      own[i].columns = columns;
      own[i].tiles = apart ? 0 : 1 + (columns + kTileColumns - 1) / kTileColumns;
      own[i].slices =
          modulated ? (static_cast<int>(args.shape.d) + kSliceWidth - 1) / kSliceWidth : 0;
    }
  }
  __syncthreads();
  // Which block does what changes no result, so the order of items within a phase may be any. The
  // rows whose products take two phases come first in each: what others wait for is done early.
  for (const RoutePhase phase : {RoutePhase::kFirst, RoutePhase::kModulated, RoutePhase::kDecide}) {
    for (const bool modulated : {true, false}) {
      for (int i = static_cast<int>(threadIdx.x); i < starts[routers]; i += kThreads) {
        const RouteSegment& segment = plan.segments[i];
        // Decisions the other way round.
        if ((segment.slices > 0) != (phase == RoutePhase::kDecide ? !modulated : modulated)) {
          continue;
        }
        const int pieces = phase == RoutePhase::kFirst       ? segment.tiles
                           : phase == RoutePhase::kModulated ? segment.slices
                                                             : 1;
        const int at = atomicAdd(&num_items, pieces);
        for (int piece = 0; piece < pieces; ++piece) {
          plan.items[at + piece] = {i, segment.router, piece, phase};
        }
      }
      __syncthreads();
    }
  }
  if (threadIdx.x == 0) *plan.num_items = num_items;
}

}  // namespace

std::size_t RoutePlanBytes(const RouteShape& shape) {
  const RoutePlanLayout layout(shape, {});
  return reinterpret_cast<std::size_t>(layout.items + RoutePlanLayout::MaxItems(shape));
}

// Not overlapped: the routing of all layers reads the plan without waiting for it.
void PlanRoutesCuda(const PlanRoutesArgs& args, CudaStream stream) {
  const std::size_t shared =
      static_cast<std::size_t>(args.shape.max_routers + 1) * sizeof(std::int32_t);
  Launch(PlanRoutes, dim3(1), kThreads, shared, Overlap::kNone, stream, args);
}

}  // namespace penstock
