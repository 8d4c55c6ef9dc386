#include "kernels/expert_combine.h"

#include "kernels/cuda_launch.cuh"
#include "kernels/row_norm.cuh"

namespace penstock {
namespace {

template <Element kElement>
__device__ __forceinline__ Vector8 LoadPartial(const void* partials, std::int64_t i) {
  if constexpr (kElement == Element::kBF16) {
    return LoadBf16(partials, i);
  } else {
    return LoadF32(static_cast<const float*>(partials), i);
  }
}

template <int kVectors, Element kElement>
__global__ void __launch_bounds__(kRowNormThreads) ExpertCombine(ExpertCombineArgs args) {
  __shared__ float shared[kRowNormWarps];
  LetNextKernelStart();
  const std::int64_t row = blockIdx.x;
  const int vectors = static_cast<int>(args.d / kVector);
  Vector8 norm_weight[kVectors] = {}, x[kVectors] = {};
#pragma unroll
  for (int n = 0; n < kVectors; ++n) {
    const int at = static_cast<int>(threadIdx.x) + n * kRowNormThreads;
    if (at < vectors) norm_weight[n] = LoadBf16Weight(args.norm_weight, at);
  }
  const bool padding = row >= *args.num_rows;
  WaitForEarlierKernels();
  if (padding) return;
  const float gate_logit = args.shared > 0 ? __ldcg(args.shared_gate_logits + row) : 0;
  const std::int64_t first = row * (args.k + args.shared) * vectors;
#pragma unroll
  for (int n = 0; n < kVectors; ++n) {
    const int at = static_cast<int>(threadIdx.x) + n * kRowNormThreads;
    if (at >= vectors) continue;
    const std::int64_t place = row * vectors + at;
    x[n] = LoadBf16(args.x, place);
    Vector8 routed = {}, gated = {};
#pragma unroll 4
    for (std::int64_t rank = 0; rank < args.k; ++rank) {
      const float weight = RoundToBf16OnDevice(__ldcg(args.weights + row * args.k + rank));
      const Vector8 part = LoadPartial<kElement>(args.partials, first + rank * vectors + at);
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        routed.v[i] += RoundToBf16OnDevice(weight * RoundToBf16OnDevice(part.v[i]));
      }
    }
#pragma unroll 4
    for (std::int64_t slice = 0; slice < args.shared; ++slice) {
      const Vector8 part =
          LoadPartial<kElement>(args.partials, first + (args.k + slice) * vectors + at);
#pragma unroll
      for (int i = 0; i < kVector; ++i) gated.v[i] += part.v[i];
    }
    const float gate = RoundToBf16OnDevice(1.0f / (1.0f + expf(-gate_logit)));
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      float delta = RoundToBf16OnDevice(routed.v[i]);
      if (args.shared > 0) {
        delta = RoundToBf16OnDevice(delta +
                                    RoundToBf16OnDevice(gate * RoundToBf16OnDevice(gated.v[i])));
      }
      x[n].v[i] = RoundToBf16OnDevice(x[n].v[i] + delta);
    }
    StoreBf16(args.x, place, x[n]);
  }
  NormalizeRow(x, norm_weight, vectors, args.epsilon,
               static_cast<__nv_bfloat16*>(args.y) + row * args.d, shared);
}

}  // namespace

void ExpertCombineCuda(const ExpertCombineArgs& args, CudaStream stream) {
  if (args.max_rows == 0) return;
  const dim3 grid(static_cast<unsigned>(args.max_rows));
  WithRowVectors(args.d, [&](auto vectors) {
    if (args.partial_element == Element::kBF16) {
      Launch(ExpertCombine<vectors(), Element::kBF16>, grid, kRowNormThreads, 0,
             Overlap::kWithEarlier, stream, args);
    } else {
      Launch(ExpertCombine<vectors(), Element::kF32>, grid, kRowNormThreads, 0,
             Overlap::kWithEarlier, stream, args);
    }
  });
}

}  // namespace penstock
