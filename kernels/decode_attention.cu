// Decode attention: one query row against its whole context, bound by reading keys and values.
//
// A unit is one KV head of one row; its context is cut into splits of kSplitPositions, counted from
// 0. All units' splits stand in one list, which is dealt out to the warps of the device in equal,
// contiguous ranges. A warp streams its blocks through a ring of its own in shared memory. Splits
// are computed by themselves and folded in order; a unit that one warp has to itself is folded in
// registers, the others leave their splits in scratch, and the last warp to arrive folds them. The
// arithmetic is the same either way, so a row's bits do not show who else was there.
#include "kernels/between_blocks.cuh"
#include "kernels/cuda_launch.cuh"
#include "kernels/decode_split.cuh"

namespace penstock {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;

// Scratch: a ticket per warp of the launch, and splits of the unit that begins in its range.
struct ScratchLayout {
  std::int32_t* tickets;  // [warps]
  float* splits;          // [warps, max_splits, queries, head_dim + kSplitTail]
  __host__ __device__ ScratchLayout(void* scratch, std::int64_t warps)
      : tickets(static_cast<std::int32_t*>(scratch)),
        splits(reinterpret_cast<float*>(tickets + (warps + 3) / 4 * 4)) {}
};

// Query head: kQueries of them belong to one virtual head, `heads_per_kv` virtual heads to a KV
// head.
template <int kHeadDim, int kQueries>
__global__ void __launch_bounds__(kThreads)
    DecodeAttention(const DeviceAttentionArgs args, int max_splits) {
  using Stream = BlockStream<kHeadDim>;
  constexpr int kStages = Stream::kStages, kStored = kHeadDim + kSplitTail;
  extern __shared__ __align__(128) char rings[];
  __shared__ std::uint64_t all_barriers[kWarps][kStages];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  LetNextKernelStart();

  char* ring = rings + warp * kDecodeRingBytes;
  std::uint64_t* barriers = all_barriers[warp];
  if (lane == 0) {
    for (int stage = 0; stage < kStages; ++stage) InitBarrier(barriers + stage, 1);
    FenceBarrierInit();
  }
  __syncwarp();

  const AttentionPlanLayout plan(args.plan);
  const int heads = static_cast<int>(args.heads) / kQueries;
  const int heads_per_kv = heads / static_cast<int>(args.kv.kv_heads);
  const std::int64_t warps = std::int64_t{gridDim.x} * kWarps;
  const std::int64_t self = std::int64_t{blockIdx.x} * kWarps + warp;
  const std::int64_t all_splits = std::int64_t{*plan.decode_splits} * heads;
  UnitWalk walk(args, plan, heads, RangeOf(self, warps, all_splits));
  Stream stream(args, walk, heads_per_kv, ring, barriers);
  int issued = 0;
  while (issued < kStages && !stream.done() && !stream.NextIsNew()) {
    stream.Issue();
    ++issued;
  }
  WaitForEarlierKernels();
  FenceGlobalForCopies();
  while (issued < kStages && !stream.done()) {
    stream.Issue();
    ++issued;
  }

  const ScratchLayout scratch(args.scratch, warps);
  int stage = 0, parity = 0;
  for (; walk.valid(); walk.Next()) {
    const Unit unit = walk.unit();
    const std::int64_t first_head =
        (std::int64_t{unit.row} * heads + unit.head) * kQueries;  // of q and y
    Vector8 q[kQueries][kHeadDim / 64];
#pragma unroll
    for (int query = 0; query < kQueries; ++query) {
#pragma unroll
      for (int part = 0; part < kHeadDim / 64; ++part) {
        q[query][part] =
            LoadBf16(args.q, (first_head + query) * (kHeadDim / 8) + part * 8 + lane % 8);
#pragma unroll
        for (int i = 0; i < kVector; ++i) q[query][part].v[i] *= args.scale * kLog2E;
      }
    }
    const bool alone = unit.split == 0 && unit.last_split == unit.splits;
    const std::int64_t owner = OwnerOf(walk.start(), warps, all_splits);
    float* stored = scratch.splits + owner * max_splits * kQueries * kStored;
    Partial folded[kQueries];
    for (int split = unit.split; split < unit.last_split; ++split) {
      Partial partials[kQueries];
      const int begin = split * static_cast<int>(kSplitPositions);
      const int end = min(begin + static_cast<int>(kSplitPositions), unit.context);
      for (int position = begin; position < end; position += kDecodeBlockTokens) {
        WaitBarrier(barriers + stage, parity);
        AddBlock<kHeadDim, kQueries>(ring + stage * Stream::kBlockBytes, end - position, q,
                                     partials);
        __syncwarp();
        if (!stream.done()) stream.Issue();
        if (++stage == kStages) {
          stage = 0;
          parity ^= 1;
        }
      }
#pragma unroll
      for (int query = 0; query < kQueries; ++query) {
        Gather<kHeadDim>(partials[query]);
        if (alone) {
          folded[query].Fold(partials[query]);
        } else {
          StorePartial<kHeadDim>(partials[query], stored + (split * kQueries + query) * kStored);
        }
      }
    }
    if (!alone) {
      // Where warps outnumber splits, each split has a warp of its own, and others stand between.
      const std::int64_t last = OwnerOf(walk.start() + unit.splits - 1, warps, all_splits);
      const int others = min(static_cast<int>(last - owner), unit.splits - 1);
      __syncwarp();
      int arrived = 0;
      if (lane == 0) {
        arrived = AddAcquireRelease(scratch.tickets + owner, 1);
        if (arrived == others) scratch.tickets[owner] = 0;
      }
      arrived = __shfl_sync(~0u, arrived, 0);
      if (arrived != others) continue;
#pragma unroll
      for (int query = 0; query < kQueries; ++query) {
#pragma unroll 8
        for (int split = 0; split < unit.splits; ++split) {
          folded[query].Fold(
              LoadStoredPartial<kHeadDim>(stored + (split * kQueries + query) * kStored));
        }
      }
    }
#pragma unroll
    for (int query = 0; query < kQueries; ++query) {
      if (lane >= kHeadDim / 8) continue;
      Vector8 result;
#pragma unroll
      for (int i = 0; i < kVector; ++i) result.v[i] = folded[query].sums[i] / folded[query].total;
      StoreBf16(args.y, (first_head + query) * (kHeadDim / 8) + lane, result);
    }
  }
}

// Query heads that one warp serves with one reading of keys and values: the largest divisor of the
// group up to 4.
int QueriesTogether(const DeviceAttentionArgs& args) {
  const std::int64_t group = args.heads / args.kv.kv_heads;
  for (int queries = 4; queries > 1; --queries) {
    if (group % queries == 0) return queries;
  }
  return 1;
}

std::int64_t MaxSplits(std::int64_t max_context) {
  return (max_context + kSplitPositions - 1) / kSplitPositions;
}

template <int kHeadDim, int kQueries>
void LaunchDecode(const DeviceAttentionArgs& args, CudaStream stream) {
  auto* kernel = DecodeAttention<kHeadDim, kQueries>;
  constexpr int kSharedBytes = kWarps * kDecodeRingBytes;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (allowed != cudaSuccess) return;
  const auto max_splits = static_cast<int>(MaxSplits(args.rows.max_blocks * args.kv.block_tokens));
  Launch(kernel, dim3(static_cast<unsigned>(MultiprocessorCount())), kThreads, kSharedBytes,
         Overlap::kWithEarlier, stream, args, max_splits);
}

template <int kHeadDim>
void LaunchDecode(const DeviceAttentionArgs& args, CudaStream stream) {
  switch (QueriesTogether(args)) {
    case 1:
      return LaunchDecode<kHeadDim, 1>(args, stream);
    case 2:
      return LaunchDecode<kHeadDim, 2>(args, stream);
    case 3:
      return LaunchDecode<kHeadDim, 3>(args, stream);
    default:
      return LaunchDecode<kHeadDim, 4>(args, stream);
  }
}

}  // namespace

std::size_t DecodeAttentionScratchBytes(const DeviceAttentionArgs& args) {
  const std::int64_t warps = std::int64_t{MultiprocessorCount()} * kWarps;
  const ScratchLayout layout(nullptr, warps);
  const std::int64_t stored = args.kv.head_dim + kSplitTail;
  return reinterpret_cast<std::size_t>(
      layout.splits + warps * MaxSplits(args.rows.max_blocks * args.kv.block_tokens) *
                          QueriesTogether(args) * stored);
}

void DecodeAttentionCuda(const DeviceAttentionArgs& args, CudaStream stream) {
  if (args.rows.max_rows == 0) return;
  if (args.kv.head_dim == 64) {
    LaunchDecode<64>(args, stream);
  } else {
    LaunchDecode<128>(args, stream);
  }
}

}  // namespace penstock
