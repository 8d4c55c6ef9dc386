// The experts' lists of many rows: a block for each expert, instead of one block for all, as
// route_lists.cuh does while its kernel runs.
#include "kernels/list_experts.cuh"

#include "kernels/cuda_launch.cuh"

namespace penstock {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;

// Calls body(row, rank, mask) for 32 neighbouring rows at a time, the whole warp: rank, where this
// lane's row chose the expert, or −1; mask of the lanes whose rows did. Counts in `less` the slots
// of experts before it.
template <typename Body>
__device__ __forceinline__ void ForRows(const ListExpertsArgs& args, int first, int end, int expert,
                                        int* less, Body body) {
  const int lane = static_cast<int>(threadIdx.x) % 32, k = args.k;
#pragma unroll 4
  for (int begin = first; begin < end; begin += 32) {
    const int row = begin + lane;
    int rank = -1;
    for (int j = 0; j < k && row < end; ++j) {
      const int chosen = __ldcg(args.expert_ids + row * k + j);
      *less += chosen < expert ? 1 : 0;
      if (chosen == expert) rank = j;
    }
    body(row, rank, __ballot_sync(~0u, rank >= 0));
  }
}

__global__ void __launch_bounds__(kThreads) ListExperts(ListExpertsArgs args) {
  __shared__ int own[kWarps], before[kWarps];
  LetNextKernelStart();
  WaitForEarlierKernels();
  const int expert = static_cast<int>(blockIdx.x), rows = *args.num_rows;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int part = (rows + kThreads - 1) / kThreads * 32, first = warp * part,
            end = min(rows, first + part);
  int less = 0, count = 0;
  ForRows(args, first, end, expert, &less,
          [&count](int, int, unsigned mask) { count += __popc(mask); });
  less = __reduce_add_sync(~0u, less);
  if (lane == 0) {
    before[warp] = less;
    own[warp] = count;
  }
  __syncthreads();
  int place = 0, total = 0;
  for (int w = 0; w < kWarps; ++w) {
    place += before[w] + (w < warp ? own[w] : 0);
    total += own[w];
  }
  if (threadIdx.x == 0) {
    args.expert_offsets[expert] = place;
    if (expert == args.experts - 1) args.expert_offsets[args.experts] = place + total;
  }
  ForRows(args, first, end, expert, &less, [&](int row, int rank, unsigned mask) {
    if (rank >= 0) args.slot_rows[place + __popc(mask & ((1u << lane) - 1))] = row * args.k + rank;
    place += __popc(mask);
  });
}

}  // namespace

void ListExpertsCuda(const ListExpertsArgs& args, CudaStream stream) {
  Launch(ListExperts, dim3(static_cast<unsigned>(args.experts)), kThreads, 0, Overlap::kWithEarlier,
         stream, args);
}

}  // namespace penstock
