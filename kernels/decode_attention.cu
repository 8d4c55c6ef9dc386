// Decode attention: one query row against its whole context, bound by reading keys and values.
//
// A unit is one KV head of one row; its context is cut into splits of kSplitPositions, counted from
// 0. All units' splits stand in one list, which is dealt out to the warps of the device in equal,
// contiguous ranges. A warp streams its blocks through a ring of its own in shared memory. Splits
// are computed by themselves and folded in order; a unit that one warp has to itself is folded in
// registers, the others leave their splits in scratch, and the last warp to arrive folds them. The
// arithmetic is the same either way, so a row's bits do not show who else was there.
#include <cuda_bf16.h>

#include "kernels/attention_plan.cuh"
#include "kernels/bulk_copy.cuh"
#include "kernels/cuda_launch.cuh"
#include "kernels/row_vectors.cuh"

namespace penstock {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kBlockTokens = 16;
constexpr int kBlocksPerSplit = static_cast<int>(kSplitPositions) / kBlockTokens;
constexpr int kRingBytes = 24 << 10;  // of one warp
constexpr float kLog2E = 1.44269504088896340736f;

// Scratch: a ticket per warp of the launch, and splits of the unit that begins in its range.
struct ScratchLayout {
  static constexpr int kTail = 4;  // maximum, total, padding
  std::int32_t* tickets;           // [warps]
  float* splits;                   // [warps, max_splits, queries, head_dim + kTail]
  __host__ __device__ ScratchLayout(void* scratch, std::int64_t warps)
      : tickets(static_cast<std::int32_t*>(scratch)),
        splits(reinterpret_cast<float*>(tickets + (warps + 3) / 4 * 4)) {}
};

// What one split, or several folded ones, amounts to for one query. Lane l holds dimensions
// 8 · (l mod (head_dim / 8)) … + 7; lanes that share them hold the same.
struct Partial {
  float maximum = -INFINITY, total = 0;
  float sums[kVector] = {};

  __device__ __forceinline__ void Fold(const Partial& next) {
    const float highest = fmaxf(maximum, next.maximum);
    const float old = exp2f(maximum - highest), fresh = exp2f(next.maximum - highest);
    maximum = highest;
    total = fmaf(total, old, next.total * fresh);
#pragma unroll
    for (int i = 0; i < kVector; ++i) sums[i] = fmaf(sums[i], old, next.sums[i] * fresh);
  }
};

// One row's KV head, and the blocks of it that a warp has to do with.
struct Unit {
  int row, head;          // head: of `virtual heads`, see Launches
  int context;            // positions
  int splits;             // of the whole unit
  int split, last_split;  // this warp's: split … last_split − 1
};

struct WarpRange {
  std::int64_t begin, end;  // in the list of all splits
};

__device__ __forceinline__ WarpRange RangeOf(std::int64_t warp, std::int64_t warps,
                                             std::int64_t splits) {
  return {warp * splits / warps, (warp + 1) * splits / warps};
}

// The warp whose range holds entry `split` of the list.
__device__ __forceinline__ std::int64_t OwnerOf(std::int64_t split, std::int64_t warps,
                                                std::int64_t splits) {
  return ((split + 1) * warps - 1) / splits;
}

// Walks over the units of a warp's range.
class UnitWalk {
 public:
  __device__ UnitWalk(const DeviceAttentionArgs& args, const AttentionPlanLayout& plan, int heads,
                      WarpRange range)
      : positions_(args.rows.positions), starts_(plan.split_starts), heads_(heads), range_(range) {
    if (range.begin >= range.end) return;
    // The row: the last one whose splits start at or before the range.
    int low = 0, high = *plan.decode_rows - 1;
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (std::int64_t{starts_[middle]} * heads_ <= range.begin) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    EnterRow(low);
    unit_.head = static_cast<int>((range.begin - row_start_) / unit_.splits);
    EnterUnit();
  }

  // Not past the end.
  __device__ bool valid() const { return unit_start_ < range_.end; }
  __device__ const Unit& unit() const { return unit_; }
  // The unit's first split in the list.
  __device__ std::int64_t start() const { return unit_start_; }

  __device__ void Next() {
    if (unit_start_ + unit_.splits >= range_.end) {
      unit_start_ = range_.end;
      return;
    }
    if (++unit_.head == heads_) {
      EnterRow(unit_.row + 1);
      unit_.head = 0;
    }
    EnterUnit();
  }

 private:
  __device__ void EnterRow(int row) {
    unit_.row = row;
    unit_.context = positions_[row] + 1;
    unit_.splits = starts_[row + 1] - starts_[row];
    row_start_ = std::int64_t{starts_[row]} * heads_;
  }
  __device__ void EnterUnit() {
    unit_start_ = row_start_ + std::int64_t{unit_.head} * unit_.splits;
    const std::int64_t before = range_.begin - unit_start_, end = range_.end - unit_start_;
    unit_.split = before > 0 ? static_cast<int>(before) : 0;
    unit_.last_split = end < unit_.splits ? static_cast<int>(end) : unit_.splits;
  }

  const std::int32_t* positions_;
  const std::int32_t* starts_;
  int heads_;
  WarpRange range_;
  std::int64_t row_start_ = 0, unit_start_ = INT64_MAX;
  Unit unit_ = {};
};

// Issues the copies of a warp's blocks, in order, ahead of their use.
template <int kHeadDim>
class BlockStream {
 public:
  static constexpr int kBlockBytes = 2 * kBlockTokens * kHeadDim * 2;
  static constexpr int kStages = kRingBytes / kBlockBytes;

  __device__ BlockStream(const DeviceAttentionArgs& args, const UnitWalk& walk, int heads_per_kv,
                         char* ring, std::uint64_t* barriers)
      : args_(args),
        walk_(walk),
        heads_per_kv_(heads_per_kv),
        ring_(ring),
        barriers_(barriers),
        policy_(StreamingPolicy()) {
    if (walk_.valid()) EnterUnit();
  }

  __device__ bool done() const { return !walk_.valid(); }
  // Whether the next block holds the row's own position, which an earlier kernel writes.
  __device__ bool NextIsNew() const { return block_ == (walk_.unit().context - 1) / kBlockTokens; }

  // Starts the copy of the next block into the next stage, which nobody reads any more.
  __device__ void Issue() {
    const int place = block_ - window_;
    if (place == 32) {
      LoadWindow();
      return Issue();
    }
    const std::int64_t block = __shfl_sync(~0u, blocks_, place);
    if (threadIdx.x % 32 == 0) {
      const auto* from = static_cast<const __nv_bfloat16*>(args_.kv.cache) +
                         args_.kv.Offset(block, walk_.unit().head / heads_per_kv_);
      BulkCopy(ring_ + stage_ * kBlockBytes, from, kBlockBytes, barriers_ + stage_, policy_);
    }
    if (++stage_ == kStages) stage_ = 0;
    if (++block_ == end_) {
      walk_.Next();
      if (walk_.valid()) EnterUnit();
    }
  }

 private:
  __device__ void EnterUnit() {
    const Unit& unit = walk_.unit();
    block_ = unit.split * kBlocksPerSplit;
    const int blocks = (unit.context + kBlockTokens - 1) / kBlockTokens;
    end_ = min(unit.last_split * kBlocksPerSplit, blocks);
    LoadWindow();
  }
  // Block ids of the next 32 blocks, one a lane.
  __device__ void LoadWindow() {
    window_ = block_;
    const int at = block_ + static_cast<int>(threadIdx.x) % 32;
    const StepRows& rows = args_.rows;
    blocks_ =
        at < end_ ? rows.block_tables[rows.sequences[walk_.unit().row] * rows.max_blocks + at] : 0;
  }

  const DeviceAttentionArgs& args_;
  UnitWalk walk_;
  int heads_per_kv_;
  char* ring_;
  std::uint64_t* barriers_;
  std::uint64_t policy_;
  int stage_ = 0, block_ = 0, end_ = 0, window_ = 0;
  std::int32_t blocks_ = 0;
};

// Eight bf16 elements of shared memory.
__device__ __forceinline__ Vector8 LoadShared(const char* from) {
  return Widen(*reinterpret_cast<const uint4*>(from));
}

// Adds one block to the split's partials of kQueries query heads. q: this lane's part of the
// queries, times the scale and log2 e. Lanes stand as [4 positions][8 parts of the head] over keys,
// and as [positions][head_dim / 8] over values.
template <int kHeadDim, int kQueries>
__device__ __forceinline__ void AddBlock(const char* block, int positions,
                                         const Vector8 (&q)[kQueries][kHeadDim / 64],
                                         Partial (&partials)[kQueries]) {
  constexpr int kRowBytes = kHeadDim * 2, kParts = kHeadDim / 64, kGroups = kBlockTokens / 4;
  constexpr int kValueLanes = kHeadDim / 8, kTogether = 32 / kValueLanes;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float scores[kQueries][kGroups] = {};
#pragma unroll
  for (int group = 0; group < kGroups; ++group) {
    const char* key = block + (group * 4 + lane / 8) * kRowBytes + lane % 8 * 16;
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      const Vector8 k = LoadShared(key + part * 128);
#pragma unroll
      for (int query = 0; query < kQueries; ++query) {
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
          scores[query][group] = fmaf(q[query][part].v[i], k.v[i], scores[query][group]);
        }
      }
    }
  }
#pragma unroll
  for (int query = 0; query < kQueries; ++query) {
    Partial& partial = partials[query];
    float highest = partial.maximum;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      float& score = scores[query][group];
#pragma unroll
      for (int step = 1; step < 8; step *= 2) score += __shfl_xor_sync(~0u, score, step);
      if (group * 4 + lane / 8 >= positions) score = -INFINITY;
      highest = fmaxf(highest, score);
    }
    highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 8));
    highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 16));
    const float old = exp2f(partial.maximum - highest);
    partial.maximum = highest;
    float total = 0;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      scores[query][group] = exp2f(scores[query][group] - highest);
      total += scores[query][group];
    }
    partial.total = fmaf(partial.total, old, total);
#pragma unroll
    for (int i = 0; i < kVector; ++i) partial.sums[i] *= old;
  }
  const char* values =
      block + kBlockTokens * kRowBytes + lane / kValueLanes * kRowBytes + lane % kValueLanes * 16;
#pragma unroll
  for (int step = 0; step < kBlockTokens / kTogether; ++step) {
    // What stands behind the context may be anything, NaN too.
    const bool in = step * kTogether + lane / kValueLanes < positions;
    const Vector8 v = in ? LoadShared(values + step * kTogether * kRowBytes) : Vector8();
    // The weight of position step · kTogether + lane / kValueLanes.
    const int in_group = step * kTogether % 4 + lane / kValueLanes;
#pragma unroll
    for (int query = 0; query < kQueries; ++query) {
      const float weight = __shfl_sync(~0u, scores[query][step * kTogether / 4], in_group * 8);
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        partials[query].sums[i] = fmaf(weight, v.v[i], partials[query].sums[i]);
      }
    }
  }
}

// Adds up what the lanes hold of a split.
template <int kHeadDim>
__device__ __forceinline__ void Gather(Partial& partial) {
  partial.total += __shfl_xor_sync(~0u, partial.total, 8);
  partial.total += __shfl_xor_sync(~0u, partial.total, 16);
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
#pragma unroll
    for (int step = kHeadDim / 8; step < 32; step *= 2) {
      partial.sums[i] += __shfl_xor_sync(~0u, partial.sums[i], step);
    }
  }
}

template <int kHeadDim>
__device__ __forceinline__ void StorePartial(const Partial& partial, float* to) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (lane < kHeadDim / 8) {
    auto* sums = reinterpret_cast<float4*>(to) + 2 * lane;
    __stcg(sums, make_float4(partial.sums[0], partial.sums[1], partial.sums[2], partial.sums[3]));
    __stcg(sums + 1,
           make_float4(partial.sums[4], partial.sums[5], partial.sums[6], partial.sums[7]));
  }
  if (lane == 0) {
    __stcg(reinterpret_cast<float2*>(to + kHeadDim), make_float2(partial.maximum, partial.total));
  }
}

template <int kHeadDim>
__device__ __forceinline__ Partial LoadStoredPartial(const float* from) {
  const int lane = static_cast<int>(threadIdx.x) % (kHeadDim / 8);
  const Vector8 sums = LoadF32(from, lane);
  const float2 tail = __ldcg(reinterpret_cast<const float2*>(from + kHeadDim));
  Partial partial;
  partial.maximum = tail.x;
  partial.total = tail.y;
#pragma unroll
  for (int i = 0; i < kVector; ++i) partial.sums[i] = sums.v[i];
  return partial;
}

// Query head: kQueries of them belong to one virtual head, `heads_per_kv` virtual heads to a KV
// head.
template <int kHeadDim, int kQueries>
__global__ void __launch_bounds__(kThreads)
    DecodeAttention(const DeviceAttentionArgs args, int max_splits) {
  using Stream = BlockStream<kHeadDim>;
  constexpr int kStages = Stream::kStages, kStored = kHeadDim + ScratchLayout::kTail;
  extern __shared__ __align__(128) char rings[];
  __shared__ std::uint64_t all_barriers[kWarps][kStages];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  LetNextKernelStart();

  char* ring = rings + warp * kRingBytes;
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
  const std::int64_t all_splits = std::int64_t{plan.split_starts[*plan.decode_rows]} * heads;
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
      for (int position = begin; position < end; position += kBlockTokens) {
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
      __threadfence();
      __syncwarp();
      int arrived = 0;
      if (lane == 0) {
        arrived = atomicAdd(scratch.tickets + owner, 1);
        if (arrived == others) scratch.tickets[owner] = 0;
      }
      arrived = __shfl_sync(~0u, arrived, 0);
      if (arrived != others) continue;
      __threadfence();
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
  constexpr int kSharedBytes = kWarps * kRingBytes;
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
  const std::int64_t stored = args.kv.head_dim + ScratchLayout::kTail;
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
