#include "kernels/route_direct.cuh"

#include "kernels/between_blocks.cuh"
#include "kernels/cuda_launch.cuh"
#include "kernels/route_products.cuh"
#include "kernels/route_scratch.cuh"

namespace penstock {
namespace {

constexpr int kColumnTiles = kDirectColumns / kProductRows;
constexpr int kSegments = 2;  // of a block
constexpr int kTiles = kSegments * kRowTiles;
constexpr int kRows = kSegments * kSegmentRows;
// Sums of the parts of the inputs that RouteRows' warps take.
constexpr int kParts = kRouteWarps, kPartValues = kDirectColumns * kRows;
constexpr int kSharedBytes = kParts * kPartValues * static_cast<int>(sizeof(float));
constexpr int kWarps = 8, kThreads = kWarps * 32;

// One block's rows: up to two segments of one router.
class DirectTile {
 public:
  __device__ __forceinline__ DirectTile(const RouteRowsArgs& args, const RouteSegment* first,
                                        int segments, float* parts)
      : args_(args), first_(first), segments_(segments), parts_(parts) {}

  __device__ __forceinline__ void Run() {
    const std::uint64_t start = GlobalNanoseconds();
    for (int part = static_cast<int>(threadIdx.x) / 32; part < kParts; part += kWarps)
      Multiply(part);
    __syncthreads();
    Store();
    __syncthreads();
    if (threadIdx.x == 0 && args_.counters != nullptr) {
      atomicAdd(reinterpret_cast<unsigned long long*>(&args_.counters[first_->router].nanoseconds),
                static_cast<unsigned long long>(GlobalNanoseconds() - start));
    }
  }

 private:
  struct Block {  // 32 inputs
    RawEight<Element::kBF16> weights[kColumnTiles][2], rows[kTiles];
  };

  __device__ __forceinline__ const void* WeightRow(int column) const {
    const int experts = static_cast<int>(args_.shape.experts);
    if (column >= experts && args_.shared_gate != nullptr) return args_.shared_gate;
    const RouterProgram& program = args_.programs[first_->router];
    return static_cast<const __nv_bfloat16*>(program.direct) +
           min(column, experts - 1) * args_.shape.d;
  }

  // Row r of the tile; where it has none, another of its rows.
  __device__ __forceinline__ std::int64_t RowOf(int r) const {
    const RouteSegment& segment = first_[r / kSegmentRows < segments_ ? r / kSegmentRows : 0];
    return segment.rows[min(r % kSegmentRows, segment.count - 1)];
  }

  // A warp's work.
  __device__ __forceinline__ void Multiply(int part) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int d = static_cast<int>(args_.shape.d);
    const int blocks = (d + kProductBlock - 1) / kProductBlock;
    const int end = (part + 1) * blocks / kParts, offset = lane % 4 * 8;
    const void *weights[kColumnTiles][2], *rows[kTiles];
#pragma unroll
    for (int i = 0; i < kColumnTiles * 2; ++i)
      weights[i / 2][i % 2] = WeightRow(i / 2 * kProductRows + i % 2 * 8 + lane / 4);
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      rows[tile] = static_cast<const __nv_bfloat16*>(args_.x) +
                   RowOf(tile * kTileRows + lane / 4) * args_.shape.d;
    }
    const auto load = [&](int block, Block& to) {
      const int at = block < end ? block * kProductBlock + offset : d;
#pragma unroll
      for (int i = 0; i < kColumnTiles * 2; ++i)
        to.weights[i / 2][i % 2] = LoadEight<Element::kBF16, false>(weights[i / 2][i % 2], at, d);
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile)
        to.rows[tile] = LoadEight<Element::kBF16, true>(rows[tile], at, d);
    };
    float chains[kColumnTiles][kTiles][2][4] = {};
    const auto add = [&](const Block& block) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int i = 2 * half;
#pragma unroll
        for (int column = 0; column < kColumnTiles; ++column) {
          const uint4 a = block.weights[column][0].words[0], b = block.weights[column][1].words[0];
          const std::uint32_t w[4] = {Word(a, i), Word(b, i), Word(a, i + 1), Word(b, i + 1)};
#pragma unroll
          for (int tile = 0; tile < kTiles; ++tile) {
            const uint4 x = block.rows[tile].words[0];
            MultiplyAdd(chains[column][tile][half], w, Word(x, i), Word(x, i + 1));
          }
        }
      }
    };
    Block even, odd;
    const int begin = part * blocks / kParts;
    load(begin, even);
    for (int block = begin; block < end; block += 2) {
      load(block + 1, odd);
      add(even);
      load(block + 2, even);
      add(odd);  // zeros behind the end
    }
    float* sums = parts_ + part * kPartValues;
#pragma unroll
    for (int column = 0; column < kColumnTiles; ++column) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int output = column * kProductRows + lane / 4 + i / 2 * 8;
          sums[output * kRows + tile * kTileRows + lane % 4 * 2 + i % 2] =
              chains[column][tile][0][i] + chains[column][tile][1][i];
        }
      }
    }
  }

  __device__ __forceinline__ void Store() const {
    const RouteScratch scratch(args_.shape, args_.scratch);
    const int experts = static_cast<int>(args_.shape.experts);
    for (int i = static_cast<int>(threadIdx.x); i < kPartValues; i += kThreads) {
      const int r = i / kDirectColumns, column = i % kDirectColumns;
      if (r / kSegmentRows >= segments_) break;
      if (column > experts) continue;
      const RouteSegment& segment = first_[r / kSegmentRows];
      if (r % kSegmentRows >= segment.count) continue;
      const int at = column * kRows + r;
      float sum = parts_[at];
#pragma unroll
      for (int part = 1; part < kParts; ++part) sum += parts_[part * kPartValues + at];
      const std::int64_t row = segment.rows[r % kSegmentRows];
      if (column < experts) {
        __stcg(scratch.direct + row * experts + column, RoundToBf16OnDevice(sum));
      } else if (args_.shared_gate != nullptr) {
        args_.shared_gate_logits[row] = RoundToBf16OnDevice(sum);
      }
    }
  }

  const RouteRowsArgs& args_;
  const RouteSegment* const first_;
  const int segments_;
  float* const parts_;
};

__global__ void __launch_bounds__(kThreads, 1)
    RouteDirect(const __grid_constant__ RouteRowsArgs args) {
  extern __shared__ __align__(16) float parts[];
  LetNextKernelStart();
  const RoutePlanLayout plan(args.shape, args.plan);
  const int segments = *plan.num_segments;
  WaitForEarlierKernels();
  for (int at = static_cast<int>(blockIdx.x) * kSegments; at < segments;
       at += static_cast<int>(gridDim.x) * kSegments) {
    const RouteSegment* first = plan.segments + at;
    const bool second = at + 1 < segments;
    const bool together = second && first[1].router == first->router;
    if (first->tiles == 0) DirectTile(args, first, together ? 2 : 1, parts).Run();
    if (second && !together && first[1].tiles == 0) DirectTile(args, first + 1, 1, parts).Run();
  }
}

}  // namespace

void RouteDirectCuda(const RouteRowsArgs& args, CudaStream stream) {
  static const bool raised =
      cudaFuncSetAttribute(RouteDirect, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           kSharedBytes) == cudaSuccess;
  if (!raised) return;  // what failed is what cudaGetLastError reports
  const std::int64_t most = (RoutePlanLayout::MaxSegments(args.shape) + kSegments - 1) / kSegments;
  Launch(RouteDirect, dim3(static_cast<unsigned>(most)), kThreads, kSharedBytes,
         Overlap::kWithEarlier, stream, args);
}

}  // namespace penstock
