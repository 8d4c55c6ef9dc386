// A block for each layer and pair of routers, a warp for each of its rows in turn.
#include "kernels/compare_routes.h"

#include <cmath>

#include "kernels/cuda_launch.cuh"
#include "kernels/row_vectors.cuh"

namespace penstock {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;

// One row's logits, less their largest: lane l has experts l, l + 32, …
template <int kPerLane>
struct RowLogits {
  float z[kPerLane];
  float sum = 0;  // Σ e^z

  __device__ RowLogits(const float* logits, int experts) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    float highest = -INFINITY;
#pragma unroll
    for (int n = 0; n < kPerLane; ++n) {
      z[n] = lane + 32 * n < experts ? __ldcg(logits + lane + 32 * n) : -INFINITY;
      highest = fmaxf(highest, z[n]);
    }
    highest = WarpMax(highest);
#pragma unroll
    for (int n = 0; n < kPerLane; ++n) {
      z[n] -= highest;
      sum += expf(z[n]);
    }
    sum = WarpSum(sum);
  }

  __device__ float Entropy() const {
    float entropy = 0;
#pragma unroll
    for (int n = 0; n < kPerLane; ++n) {
      const float p = expf(z[n]) / sum;
      // Below the normal range p ln p is under 1e-36: zero.
      if (p >= 0x1p-126f) entropy -= p * logf(p);
    }
    return WarpSum(entropy);
  }

  // KL of this one's softmax from that of `other`, as in divergence.h.
  __device__ float Divergence(const RowLogits& other, int experts) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    float difference = 0;
#pragma unroll
    for (int n = 0; n < kPerLane; ++n) {
      if (lane + 32 * n < experts) difference = fmaf(expf(z[n]), z[n] - other.z[n], difference);
    }
    return fmaxf(WarpSum(difference) / sum + logf(other.sum / sum), 0);
  }
};

template <int kPerLane>
__global__ void __launch_bounds__(kThreads)
    CompareRoutes(const __grid_constant__ CompareRoutesArgs args) {
  __shared__ std::int32_t expert_rows[32 * kPerLane];
  __shared__ double kl[kWarps], entropy[kWarps];
  __shared__ std::int32_t counts[4];
  WaitForEarlierKernels();
  const int shadow = static_cast<int>(blockIdx.x) % args.routers.num_routers,
            serving = static_cast<int>(blockIdx.x) / args.routers.num_routers;
  const std::int64_t layer = blockIdx.y, pair = layer * gridDim.x + blockIdx.x;
  const ShadowRouter &a = args.routers.routers[serving], &b = args.routers.routers[shadow];
  if ((b.asked_of >> serving & 1u) == 0) {
    if (threadIdx.x == 0) args.agreements[pair] = {};
    return;
  }
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int num_rows = *args.num_rows, experts = static_cast<int>(args.experts),
            k = static_cast<int>(args.k);
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += kThreads) expert_rows[e] = 0;
  if (threadIdx.x < 4) counts[threadIdx.x] = 0;
  __syncthreads();
  RouteAgreement own;
  for (int row = warp; row < num_rows; row += kWarps) {
    const std::int32_t failed = __ldcg(args.failed_layer + row);
    if (args.row_routers[row] != a.serves || args.counted[row] == 0) continue;
    if (failed >= 0 && failed <= args.first_layer + layer) continue;
    const std::int64_t at = layer * args.rows + row, of_a = serving * args.router_rows + at,
                       of_b = shadow * args.router_rows + at;
    if (__ldcg(args.failed + of_b) >= 0) {
      ++own.failed;
      continue;
    }
    ++own.rows;
    const std::int32_t* served = args.served + (layer * args.served_rows + row) * k;
    const std::int32_t chosen = lane < k ? __ldcg(args.expert_ids + of_b * k + lane) : -1;
    bool both = false;
    for (int i = 0; i < k; ++i) both |= __ldcg(served + i) == chosen;
    own.overlap += __popc(__ballot_sync(~0u, both));
    if (lane < k) atomicAdd(expert_rows + chosen, 1);
    if (b.has_logits == 0) {
      own.entropy += logf(static_cast<float>(k));
      continue;
    }
    const RowLogits<kPerLane> of_shadow(args.logits + of_b * experts, experts);
    own.entropy += of_shadow.Entropy();
    if (a.has_logits == 0 || __ldcg(args.failed + of_a) >= 0) continue;
    ++own.kl_rows;
    own.kl +=
        RowLogits<kPerLane>(args.logits + of_a * experts, experts).Divergence(of_shadow, experts);
  }
  if (lane == 0) {
    kl[warp] = own.kl;
    entropy[warp] = own.entropy;
    atomicAdd(counts, own.rows);
    atomicAdd(counts + 1, own.kl_rows);
    atomicAdd(counts + 2, own.overlap);
    atomicAdd(counts + 3, own.failed);
  }
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += kThreads) {
    args.expert_rows[pair * experts + e] = expert_rows[e];
  }
  if (threadIdx.x != 0) return;
  RouteAgreement all;
  for (int w = 0; w < kWarps; ++w) {
    all.kl += kl[w];
    all.entropy += entropy[w];
  }
  all.rows = counts[0];
  all.kl_rows = counts[1];
  all.overlap = counts[2];
  all.failed = counts[3];
  args.agreements[pair] = all;
}

}  // namespace

void CompareRoutesCuda(const CompareRoutesArgs& args, CudaStream stream) {
  const auto pairs = static_cast<unsigned>(args.routers.num_serving * args.routers.num_routers);
  if (args.layers == 0 || pairs == 0) return;
  const dim3 blocks(pairs, static_cast<unsigned>(args.layers));
  if (args.experts <= 64) {
    Launch(CompareRoutes<2>, blocks, kThreads, 0, Overlap::kWithEarlier, stream, args);
  } else {
    Launch(CompareRoutes<8>, blocks, kThreads, 0, Overlap::kWithEarlier, stream, args);
  }
}

}  // namespace penstock
