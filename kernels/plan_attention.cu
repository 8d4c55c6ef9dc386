#include "kernels/attention_plan.cuh"
#include "kernels/cuda_launch.cuh"

namespace penstock {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;

// The sum of `value` over the threads before this one; `total`: over all. `sums`: [kWarps].
__device__ int SumBefore(int value, int* sums, int* total) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  int inclusive = value;
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(~0u, inclusive, step);
    if (lane >= step) inclusive += other;
  }
  __syncthreads();  // `sums` of an earlier call have been read
  if (lane == 31) sums[warp] = inclusive;
  __syncthreads();
  int before = inclusive - value;
  *total = 0;
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) before += sums[w];
    *total += sums[w];
  }
  return before;
}

__global__ void __launch_bounds__(kThreads) PlanAttention(PlanAttentionArgs args) {
  __shared__ int sums[kWarps];
  const AttentionPlanLayout plan(args.plan);
  const StepRows& rows = args.rows;
  const int num_rows = *rows.num_rows, decode_rows = *args.num_decode_rows;
  int splits = 0, tiles = 0;  // so far
  for (int first = 0; first < num_rows; first += kThreads) {
    const int row = first + static_cast<int>(threadIdx.x);
    const bool in = row < num_rows, decodes = row < decode_rows;
    const int position = in ? rows.positions[row] : 0;
    int total = 0;
    const int own = in && decodes ? position / static_cast<int>(kSplitPositions) + 1 : 0;
    const int before = SumBefore(own, sums, &total);
    if (in && decodes) plan.split_starts[row] = splits + before;
    splits += total;
    // Tiles begin at multiples of their size, so that a row's tile depends on its position alone.
    const bool begins = in && !decodes &&
                        (row == decode_rows || rows.sequences[row] != rows.sequences[row - 1] ||
                         position % kPrefillTileRows == 0);
    const int tile = tiles + SumBefore(begins ? 1 : 0, sums, &total);
    if (begins) {
      int count = 1;
      while (count < kPrefillTileRows && row + count < num_rows &&
             rows.sequences[row + count] == rows.sequences[row] &&
             (position + count) % kPrefillTileRows != 0) {
        ++count;
      }
      plan.tiles[tile] = {row, count, position, rows.sequences[row]};
    }
    tiles += total;
  }
  if (threadIdx.x == 0) {
    *plan.decode_rows = decode_rows;
    *plan.prefill_tiles = tiles;
    *plan.decode_splits = splits;
    plan.split_starts[decode_rows] = splits;
  }
}

}  // namespace

std::size_t AttentionPlanBytes(std::int64_t max_rows) {
  const AttentionPlanLayout layout({.memory = nullptr, .max_rows = max_rows});
  return reinterpret_cast<std::size_t>(layout.tiles + max_rows);
}

// Not overlapped: the attention kernels of all layers read the plan without waiting for it.
void PlanAttentionCuda(const PlanAttentionArgs& args, CudaStream stream) {
  Launch(PlanAttention, dim3(1), kThreads, 0, Overlap::kNone, stream, args);
}

}  // namespace penstock
