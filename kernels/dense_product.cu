#include "kernels/dense_product.h"

#include "kernels/streaming_launch.cuh"

namespace penstock {
namespace {

using streaming::LaunchStreaming;
using streaming::Params;
using streaming::Product;
using streaming::TileShape;

// Tiles of 128 rows halve what the tokens cost, where they are enough to occupy the device.
template <Product kProduct>
void Stream(const Params& params, const TileMap& map, CudaStream stream) {
  const bool many = params.m * params.splits >= 128 * 2 * MultiprocessorCount();
  if (params.rows <= 8)
    return LaunchStreaming<kProduct, TileShape<1, 1, 128, 8>>(params, map, stream);
  if (params.rows <= 32) {
    return many ? LaunchStreaming<kProduct, TileShape<2, 1, 128, 32>>(params, map, stream)
                : LaunchStreaming<kProduct, TileShape<1, 1, 128, 32>>(params, map, stream);
  }
  if (params.rows <= 64) {
    return many ? LaunchStreaming<kProduct, TileShape<2, 1, 128, 64>>(params, map, stream)
                : LaunchStreaming<kProduct, TileShape<1, 1, 128, 64>>(params, map, stream);
  }
  if (many && params.rows > 128)
    return LaunchStreaming<kProduct, TileShape<2, 2, 64, 160>>(params, map, stream);
  LaunchStreaming<kProduct, TileShape<2, 1, 128, 128>>(params, map, stream);
}

constexpr int kPlainWarps = 8;

// A shape that the copy engine cannot read: a warp for each output.
__global__ void __launch_bounds__(kPlainWarps * 32)
    PlainDense(const __grid_constant__ DenseProductArgs args, std::int64_t part) {
  WaitForEarlierKernels();
  LetNextKernelStart();
  const std::int64_t output = std::int64_t{blockIdx.x} * kPlainWarps + threadIdx.x / 32;
  const std::int64_t row = blockIdx.y, split = blockIdx.z;
  if (output >= args.m) return;
  const auto* x = static_cast<const __nv_bfloat16*>(args.x) + row * args.n;
  const auto* weight = static_cast<const __nv_bfloat16*>(args.weight) + output * args.n;
  const std::int64_t end = min(args.n, (split + 1) * part);
  float sum = 0.0f;
  for (std::int64_t i = split * part + threadIdx.x % 32; i < end; i += 32)
    sum += __bfloat162float(x[i]) * __bfloat162float(weight[i]);
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  if (threadIdx.x % 32 != 0) return;
  const std::int64_t place = (split * args.rows + row) * args.m + output;
  if (args.y_element == Element::kBF16) {
    static_cast<__nv_bfloat16*>(args.y)[place] = __float2bfloat16(sum);
  } else {
    static_cast<float*>(args.y)[place] = sum;
  }
}

}  // namespace

void DenseProductCuda(const DenseProductArgs& args, CudaStream stream) {
  if (args.rows == 0) return;
  const std::int64_t part = DenseProductPart(args);
  if (args.weight_map == nullptr) {
    const dim3 grid(static_cast<unsigned>((args.m + kPlainWarps - 1) / kPlainWarps),
                    static_cast<unsigned>(args.rows), static_cast<unsigned>(args.splits));
    PlainDense<<<grid, kPlainWarps * 32, 0, stream>>>(args, part);
    return;
  }
  Params params = {};
  params.x = static_cast<const __nv_bfloat16*>(args.x);
  params.y = args.y;
  params.rows = static_cast<int>(args.rows);
  params.n = static_cast<int>(args.n);
  params.m = static_cast<int>(args.m);
  params.splits = static_cast<int>(args.splits);
  params.part = static_cast<int>(part);
  if (args.y_element == Element::kBF16) {
    Stream<Product::kDenseBf16>(params, *args.weight_map, stream);
  } else {
    Stream<Product::kDenseF32>(params, *args.weight_map, stream);
  }
}

}  // namespace penstock
