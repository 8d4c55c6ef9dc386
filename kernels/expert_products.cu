#include "kernels/expert_products.h"

#include "kernels/grouped_experts.cuh"
#include "kernels/streaming_launch.cuh"

namespace penstock {
namespace {

using streaming::LaunchStreaming;
using streaming::Params;
using streaming::Product;
using streaming::TileShape;

// Measured on an H100: up to 16 rows tiles of 64 rows of weights win, from 17 on those of 128,
// which gather each token half as often. The shared experts' tiles hold as many tokens as there are
// rows. With more than 256 rows an expert has so many tokens that L2 bounds the product, not
// memory.
template <Product kProduct>
void Stream(const Params& params, const TileMap& map, CudaStream stream) {
  if (params.rows <= 8)
    return LaunchStreaming<kProduct, TileShape<1, 1, 128, 8>>(params, map, stream);
  if (params.rows <= 16)
    return LaunchStreaming<kProduct, TileShape<1, 1, 128, 32>>(params, map, stream);
  if (params.rows <= 32)
    return LaunchStreaming<kProduct, TileShape<2, 1, 128, 32>>(params, map, stream);
  if (params.rows <= 64)
    return LaunchStreaming<kProduct, TileShape<2, 1, 128, 64>>(params, map, stream);
  if (params.rows <= 256)
    return LaunchStreaming<kProduct, TileShape<2, 1, 128, 128>>(params, map, stream);
  LaunchStreaming<kProduct, TileShape<2, 2, 64, 160>>(params, map, stream);
}

Params ParamsOf(const ExpertProductsArgs& args) {
  Params params = {};
  params.expert_offsets = args.expert_offsets;
  params.slots = args.slots;
  if (ListsItself(args)) {
    params.expert_ids = args.expert_ids;
    params.num_rows = args.num_rows;
  }
  params.rows = static_cast<int>(args.rows);
  params.experts = static_cast<int>(args.experts);
  params.shared = static_cast<int>(args.shared);
  params.k = static_cast<int>(args.k);
  return params;
}

// ---- Shapes that the copy engine cannot read: a warp for each output of each place.
constexpr int kPlainWarps = 8;

__device__ __forceinline__ float DotOfWarp(const __nv_bfloat16* a, const __nv_bfloat16* b,
                                           std::int64_t n) {
  float sum = 0.0f;
  for (std::int64_t i = threadIdx.x % 32; i < n; i += 32)
    sum += __bfloat162float(a[i]) * __bfloat162float(b[i]);
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  return sum;
}

// The work of blockIdx.y: an entry of slots, then the shared experts' rows. False: nothing.
__device__ bool PlainPlace(const ExpertProductsArgs& args, std::int64_t* expert, std::int64_t* row,
                           std::int64_t* place) {
  const std::int64_t entry = blockIdx.y, routed = args.rows * args.k, places = args.k + args.shared;
  if (entry >= routed) {
    const std::int64_t s = (entry - routed) / args.rows;
    *expert = args.experts + s;
    *row = (entry - routed) % args.rows;
    *place = *row * places + args.k + s;
    return true;
  }
  if (entry >= args.expert_offsets[args.experts]) return false;
  for (*expert = 0; entry >= args.expert_offsets[*expert + 1];) ++*expert;
  *row = args.slots[entry] / args.k;
  *place = *row * places + args.slots[entry] % args.k;
  return true;
}

template <bool kGateUp>
__global__ void __launch_bounds__(kPlainWarps * 32)
    PlainExperts(const __grid_constant__ ExpertProductsArgs args) {
  WaitForEarlierKernels();
  LetNextKernelStart();
  const std::int64_t output = std::int64_t{blockIdx.x} * kPlainWarps + threadIdx.x / 32;
  std::int64_t expert, row, place;
  if (!PlainPlace(args, &expert, &row, &place)) return;
  const std::int64_t d = args.d, width = args.width;
  auto* h = static_cast<__nv_bfloat16*>(args.h);
  if constexpr (kGateUp) {
    if (output >= width) return;
    const auto* x = static_cast<const __nv_bfloat16*>(args.x) + row * d;
    const auto* gate =
        static_cast<const __nv_bfloat16*>(args.gate_up) + (expert * 2 * width + output) * d;
    const float g = DotOfWarp(gate, x, d), u = DotOfWarp(gate + width * d, x, d);
    if (threadIdx.x % 32 == 0) h[place * width + output] = streaming::GatedSilu(g, u);
  } else {
    if (output >= d) return;
    const auto* down = static_cast<const __nv_bfloat16*>(args.down) + (expert * d + output) * width;
    const float sum = DotOfWarp(down, h + place * width, width);
    if (threadIdx.x % 32 == 0)
      static_cast<__nv_bfloat16*>(args.y)[place * d + output] = __float2bfloat16(sum);
  }
}

template <bool kGateUp>
void LaunchPlain(const ExpertProductsArgs& args, CudaStream stream) {
  const std::int64_t outputs = kGateUp ? args.width : args.d;
  const dim3 grid(static_cast<unsigned>((outputs + kPlainWarps - 1) / kPlainWarps),
                  static_cast<unsigned>(args.rows * (args.k + args.shared)));
  PlainExperts<kGateUp><<<grid, kPlainWarps * 32, 0, stream>>>(args);
}

}  // namespace

void ExpertGateUpCuda(const ExpertProductsArgs& args, CudaStream stream) {
  if (args.rows == 0) return;
  if (args.gate_up_map == nullptr) return LaunchPlain<true>(args, stream);
  if (ExpertsInListOrder(args)) return grouped::GateUp(args, stream);
  Params params = ParamsOf(args);
  params.x = static_cast<const __nv_bfloat16*>(args.x);
  params.y = args.h;
  params.next_tile = args.gate_up_tiles;
  params.x_ready = args.x_ready;
  params.n = static_cast<int>(args.d);
  params.m = static_cast<int>(args.width);
  Stream<Product::kGateUp>(params, *args.gate_up_map, stream);
}

void ExpertDownCuda(const ExpertProductsArgs& args, CudaStream stream) {
  if (args.rows == 0) return;
  if (args.down_map == nullptr) return LaunchPlain<false>(args, stream);
  if (ExpertsInListOrder(args)) return grouped::Down(args, stream);
  Params params = ParamsOf(args);
  params.x = static_cast<const __nv_bfloat16*>(args.h);
  params.y = args.y;
  params.next_tile = args.down_tiles;
  params.x_ready = args.x_ready;
  params.n = static_cast<int>(args.width);
  params.m = static_cast<int>(args.d);
  Stream<Product::kDown>(params, *args.down_map, stream);
}

}  // namespace penstock
