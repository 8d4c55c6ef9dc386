#include "kernels/residual_norm.h"

#include "kernels/cuda_launch.cuh"
#include "kernels/row_norm.cuh"

namespace penstock {
namespace {

template <int kVectors>
__global__ void __launch_bounds__(kRowNormThreads) ResidualNorm(ResidualNormArgs args) {
  __shared__ float shared[kRowNormWarps];
  LetNextKernelStart();
  const std::int64_t row = blockIdx.x;
  const int vectors = static_cast<int>(args.d / kVector);
  Vector8 weight[kVectors] = {}, x[kVectors] = {};
#pragma unroll
  for (int n = 0; n < kVectors; ++n) {
    const int at = static_cast<int>(threadIdx.x) + n * kRowNormThreads;
    if (at < vectors) weight[n] = LoadBf16Weight(args.weight, at);
  }
  const bool padding = row >= *args.num_rows;
  WaitForEarlierKernels();
  if (padding) {
    if (threadIdx.x == 0 && args.ready != nullptr) atomicAdd(args.ready, 1);
    return;
  }
#pragma unroll
  for (int n = 0; n < kVectors; ++n) {
    const int at = static_cast<int>(threadIdx.x) + n * kRowNormThreads;
    if (at >= vectors) continue;
    const std::int64_t place = row * vectors + at;
    x[n] = LoadBf16(args.x, place);
    if (args.delta_parts == nullptr && args.delta == nullptr) continue;
    Vector8 delta = {};
    if (args.delta_parts == nullptr) {
      delta = LoadBf16(args.delta, place);
    } else {
#pragma unroll 4
      for (std::int64_t part = 0; part < args.parts; ++part) {
        const Vector8 more = LoadF32(args.delta_parts, part * args.part_rows * vectors + place);
#pragma unroll
        for (int i = 0; i < kVector; ++i) delta.v[i] += more.v[i];
      }
    }
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      x[n].v[i] = RoundToBf16OnDevice(x[n].v[i] + RoundToBf16OnDevice(delta.v[i]));
    }
    StoreBf16(args.x, place, x[n]);
  }
  NormalizeRow(x, weight, vectors, args.epsilon, static_cast<__nv_bfloat16*>(args.y) + row * args.d,
               shared);
  if (args.ready == nullptr) return;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(args.ready, 1);
  }
}

}  // namespace

void ResidualNormCuda(const ResidualNormArgs& args, CudaStream stream) {
  if (args.max_rows == 0) return;
  WithRowVectors(args.d, [&](auto vectors) {
    Launch(ResidualNorm<vectors()>, dim3(static_cast<unsigned>(args.max_rows)), kRowNormThreads, 0,
           Overlap::kWithEarlier, stream, args);
  });
}

}  // namespace penstock
