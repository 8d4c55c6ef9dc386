#include <cuda_bf16.h>

#include "kernels/cuda_launch.cuh"
#include "kernels/list_rows.cuh"

namespace penstock {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kRows = 16;  // of a block
constexpr int kMostRanks = 16;

// A block reads its rows once and writes each where its experts' lists have it. Lists rise, so that
// a thread finds in each the part that these rows have.
__global__ void __launch_bounds__(kThreads) ListRows(ListRowsArgs args) {
  __shared__ int places[kRows * kMostRanks];
  LetNextKernelStart();
  const int first_slot = static_cast<int>(blockIdx.x) * kRows * args.k;
  const int end_slot = first_slot + kRows * args.k;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * args.k; i += kThreads) places[i] = -1;
  WaitForEarlierKernels();
  __syncthreads();
  for (int expert = static_cast<int>(threadIdx.x); expert < args.experts; expert += kThreads) {
    const int end = __ldcg(args.expert_offsets + expert + 1);
    int low = __ldcg(args.expert_offsets + expert), high = end;  // the first that is not before
    while (low < high) {
      const int middle = (low + high) / 2;
      if (__ldcg(args.slots + middle) < first_slot) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    for (; low < end; ++low) {
      const int slot = __ldcg(args.slots + low);
      if (slot >= end_slot) break;
      places[slot - first_slot] = low;
    }
  }
  __syncthreads();
  const int units = args.d / 8, lane = static_cast<int>(threadIdx.x) % 32;
  const auto* x = static_cast<const uint4*>(args.x);
  auto* y = static_cast<uint4*>(args.y);
  for (int r = static_cast<int>(threadIdx.x) / 32; r < kRows; r += kWarps) {
    const std::int64_t row = std::int64_t{blockIdx.x} * kRows + r;
    if (row >= args.rows) break;
    constexpr int kTogether = 8;
    for (int begin = 0; begin < units; begin += 32 * kTogether) {
      uint4 part[kTogether];
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        const int at = begin + i * 32 + lane;
        if (at < units) part[i] = __ldcg(x + row * units + at);
      }
      for (int rank = 0; rank < args.k; ++rank) {
        const std::int64_t place = places[r * args.k + rank];
        if (place < 0) continue;
#pragma unroll
        for (int i = 0; i < kTogether; ++i) {
          const int at = begin + i * 32 + lane;
          if (at < units) y[place * units + at] = part[i];
        }
      }
    }
  }
}

}  // namespace

void ListRowsCuda(const ListRowsArgs& args, CudaStream stream) {
  Launch(ListRows, dim3(static_cast<unsigned>((args.rows + kRows - 1) / kRows)), kThreads, 0,
         Overlap::kWithEarlier, stream, args);
}

}  // namespace penstock
