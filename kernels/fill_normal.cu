#include "kernels/fill_normal.h"

#include <cuda_bf16.h>

#include "kernels/cuda_launch.cuh"
#include "kernels/normal_quantile.h"

// Built without contraction (kernels/CMakeLists.txt), as its twin.

namespace penstock {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksPerMultiprocessor = 8;

struct SquareRoot {
  __host__ __device__ double operator()(double x) const { return sqrt(x); }
};

// A thread makes the two elements of one Philox block.
__global__ void __launch_bounds__(kThreads) NormalValues(FillNormalArgs args) {
  const PhiloxKey key = PhiloxKeyOf(args.seed);
  auto* values = static_cast<__nv_bfloat16*>(args.values);
  const std::int64_t pairs = (args.count + 1) / 2;
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t n = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; n < pairs; n += step) {
    const PhiloxBlock bits = normal_quantile::Bits(key, args.stream, static_cast<std::uint64_t>(n));
    for (int half = 0; half < 2 && 2 * n + half < args.count; ++half) {
      const double p = normal_quantile::Probability(bits, half);
      const double value = normal_quantile::Quantile(p, SquareRoot()) * args.std;
      values[2 * n + half] = __float2bfloat16_rn(static_cast<float>(value));
    }
  }
}

__global__ void __launch_bounds__(kThreads) ConstantValues(FillConstantArgs args) {
  const __nv_bfloat16 value = __float2bfloat16_rn(args.value);
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x; i < args.count;
       i += step) {
    static_cast<__nv_bfloat16*>(args.values)[i] = value;
  }
}

dim3 Grid() {
  return dim3(static_cast<unsigned>(MultiprocessorCount() * kBlocksPerMultiprocessor));
}

}  // namespace

void FillNormalCuda(const FillNormalArgs& args, CudaStream stream) {
  if (args.count > 0) Launch(NormalValues, Grid(), kThreads, 0, Overlap::kNone, stream, args);
}

void FillConstantCuda(const FillConstantArgs& args, CudaStream stream) {
  if (args.count > 0) Launch(ConstantValues, Grid(), kThreads, 0, Overlap::kNone, stream, args);
}

}  // namespace penstock
