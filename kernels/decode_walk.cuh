// Which keys and values a warp of DecodeAttention reads, and the copies that bring them.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/attention_plan.cuh"
#include "kernels/bulk_copy.cuh"

namespace penstock {

inline constexpr int kDecodeBlockTokens = 16;
inline constexpr int kBlocksPerSplit = static_cast<int>(kSplitPositions) / kDecodeBlockTokens;
inline constexpr int kDecodeRingBytes = 16 << 10;  // of one warp

// One row's KV head, and the blocks of it that a warp has to do with.
struct Unit {
  int row, head;          // head: a group of query heads that one warp serves together
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
    // The row: the last one whose splits start at or before the range, 32 probes at a time.
    const int lane = static_cast<int>(threadIdx.x) % 32;
    int low = 0, count = *plan.decode_rows;
    while (count > 1) {
      const int step = (count + 31) / 32, probe = low + lane * step;
      const bool before =
          lane * step < count && std::int64_t{starts_[probe]} * heads_ <= range.begin;
      const int passed = __popc(__ballot_sync(~0u, before)) - 1;
      count = min(step, count - passed * step);
      low += passed * step;
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
  static constexpr int kBlockBytes = 2 * kDecodeBlockTokens * kHeadDim * 2;
  static constexpr int kStages = kDecodeRingBytes / kBlockBytes;

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
  __device__ bool NextIsNew() const {
    return block_ == (walk_.unit().context - 1) / kDecodeBlockTokens;
  }

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
      ArriveExpecting(barriers_ + stage_, kBlockBytes);
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
    const int blocks = (unit.context + kDecodeBlockTokens - 1) / kDecodeBlockTokens;
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

}  // namespace penstock
