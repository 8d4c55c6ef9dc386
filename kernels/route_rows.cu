// One kernel routes a layer's rows. Its blocks take the pieces of work that PlanRoutes listed:
// first products (x against the direct and the first matrices), slices of modulated products, and
// one decision per segment of up to 16 rows; the block that decides the last segment makes the
// lists. A piece that needs others' results waits for them. No block waits for a piece that stands
// behind its own in the list, and the kernel behind this one cannot take the place of a block that
// has not started, so the waits end.
#include <type_traits>

#include "kernels/cuda_launch.cuh"
#include "kernels/list_experts.cuh"
#include "kernels/route_direct.cuh"
#include "kernels/route_lists.cuh"
#include "kernels/route_pieces.cuh"
#include "kernels/route_segment_decision.cuh"

namespace penstock {
namespace {

// Blocks of a multiprocessor. Many rows have more to wait for than registers to lose.
constexpr int kFewRowsBlocks = 1, kManyRowsBlocks = 2;

template <int kBlocks>
class BlockRouter {
 public:
  // copies: [1] of shared memory.
  __device__ BlockRouter(const RouteRowsArgs& args, float* shared, std::uint64_t* copies)
      : args_(args), block_(args, shared, copies), shared_(shared) {}

  // Floats of shared memory.
  static std::int64_t Shared(const RouteShape& shape) {
    std::int64_t most = RoutePieces<kBlocks>::Shared(shape);
    for (const std::int64_t floats :
         {SegmentDecision<kBlocks>::Shared(shape), ExpertLists<kBlocks>::Shared(shape)}) {
      if (floats > most) most = floats;
    }
    return most;
  }

  // rehearses: SegmentDecision does, of a block's first item.
  __device__ __forceinline__ void Run(bool rehearses) {
    // The first item is read before it is known to be one: there is room for one a block.
    RouteItem item = block_.plan.items[blockIdx.x];
    const int items = *block_.plan.num_items;
    num_segments_ = *block_.plan.num_segments;
    if (items == 0) return RouteNothing();
    // A block without work leaves its place to the kernel behind at once; the others wait, and so
    // does whoever waits for this kernel.
    for (int at = static_cast<int>(blockIdx.x); at < items; at += static_cast<int>(gridDim.x)) {
      const bool first = at == static_cast<int>(blockIdx.x);
      if (!first) item = block_.plan.items[at];
      Take(item, first && rehearses);
    }
  }

 private:
  __device__ void RouteNothing() {
    WaitForEarlierKernels();
    if (blockIdx.x != 0 || args_.expert_offsets == nullptr) return;
    for (int e = static_cast<int>(threadIdx.x); e <= block_.experts; e += kRouteThreads) {
      args_.expert_offsets[e] = 0;
    }
  }

  __device__ __forceinline__ void Take(const RouteItem& item, bool rehearses) {
    const RouteSegment& segment = block_.plan.segments[item.segment];
    // In memory, where registers are few.
    std::conditional_t<kBlocks == 1, const RouterProgram, const RouterProgram&> program =
        args_.programs[item.router];
    const bool decides = item.phase == RoutePhase::kDecide;
    std::uint64_t start = 0;
    if (item.phase == RoutePhase::kFirst) {
      start = RoutePieces<kBlocks>(block_).First(segment, program, item.piece, rehearses);
    } else if (item.phase == RoutePhase::kModulated) {
      start = RoutePieces<kBlocks>(block_).Modulate(item, segment, program);
    } else {
      start = SegmentDecision<kBlocks>(block_).Decide(item, segment, program, rehearses);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      if (decides) {
        block_.scratch.arrived[item.segment] = 0;  // nobody waits there any more
      } else {
        AddRelease(block_.scratch.arrived + item.segment, 1);
      }
      if (args_.counters != nullptr) {
        atomicAdd(reinterpret_cast<unsigned long long*>(&args_.counters[item.router].nanoseconds),
                  GlobalNanoseconds() - start);
      }
    }
    if (decides && MakesLists(args_) && DecidedLast()) {
      ExpertLists<kBlocks>(block_, shared_).Make();
    }
  }

  // Whether all segments are decided now, and this block was the last.
  __device__ bool DecidedLast() {
    if (num_segments_ == 1) return true;
    __shared__ bool last;
    if (threadIdx.x == 0) {
      last = AddAcquireRelease(block_.scratch.decided, 1) == num_segments_ - 1;
      if (last) *block_.scratch.decided = 0;
    }
    __syncthreads();
    return last;
  }

  const RouteRowsArgs& args_;
  RouteBlock<kBlocks> block_;
  float* const shared_;
  int num_segments_ = 0;
};

template <int kBlocks>
__global__ void __launch_bounds__(kRouteThreads, kBlocks)
    RouteRows(const __grid_constant__ RouteRowsArgs args, bool rehearses) {
  extern __shared__ __align__(16) float shared[];
  __shared__ std::uint64_t copies[1];
  LetNextKernelStart();
  BlockRouter<kBlocks>(args, shared, copies).Run(rehearses);
}

}  // namespace

std::size_t RouteScratchBytes(const RouteShape& shape) {
  return reinterpret_cast<std::size_t>(RouteScratch(shape, nullptr).end);
}

void RouteRowsCuda(const RouteRowsArgs& args, CudaStream stream) {
  if (args.shape.max_rows == 0) return;
  const bool many = args.shape.max_rows >= kRowsRoutedApart;
  if (RoutesDirectApart(args.shape)) RouteDirectCuda(args, stream);
  const auto kernel = many ? RouteRows<kManyRowsBlocks> : RouteRows<kFewRowsBlocks>;
  const std::int64_t floats = many ? BlockRouter<kManyRowsBlocks>::Shared(args.shape)
                                   : BlockRouter<kFewRowsBlocks>::Shared(args.shape);
  const std::size_t shared = static_cast<std::size_t>(floats) * sizeof(float);
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(shared)) != cudaSuccess) {
    return;
  }
  const int blocks = MultiprocessorCount() * (many ? kManyRowsBlocks : kFewRowsBlocks);
  Launch(kernel, dim3(static_cast<unsigned>(blocks)), kRouteThreads, shared, Overlap::kWithEarlier,
         stream, args, !many);
  if (!many || args.expert_offsets == nullptr) return;
  ListExpertsCuda({.num_rows = args.num_rows,
                   .expert_ids = args.expert_ids,
                   .expert_offsets = args.expert_offsets,
                   .slot_rows = args.slot_rows,
                   .experts = static_cast<int>(args.shape.experts),
                   .k = static_cast<int>(args.shape.k)},
                  stream);
}

}  // namespace penstock
