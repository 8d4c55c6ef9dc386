// Prefill attention: tiles of 64 rows of one sequence against tiles of 64 positions of its cache,
// in the manner of FlashAttention-3 (Shah et al., arXiv 2407.08608). Tiles of rows and of positions
// begin at multiples of 64, so only the last tile of positions needs the causal mask, and a row's
// arithmetic depends on its position alone.
//
// A block's warps: two warpgroups with a tile of rows each, of the same head and sequence; four
// warps that bring queries, keys and values for both, ahead of them.
#include "kernels/attention_plan.cuh"
#include "kernels/cuda_launch.cuh"
#include "kernels/matrix_fragments.cuh"
#include "kernels/row_vectors.cuh"
#include "kernels/tile_copy.cuh"
#include "kernels/wgmma.cuh"

namespace penstock {
namespace {

constexpr int kTileRows = 64;
constexpr int kTilePositions = 64;
constexpr int kWarpgroups = 2;
constexpr int kItemRows = kWarpgroups * kTileRows;
static_assert(kItemRows == kPrefillTileRows && kTileRows == kTilePositions);
constexpr int kThreads = (kWarpgroups + 1) * 128;
constexpr int kStages = 4, kQueryStages = 2;
constexpr int kBlockTokens = 16;  // KvBlocks::block_tokens
constexpr int kTileBlocks = kTilePositions / kBlockTokens;

struct Shared {
  std::uint64_t full[kStages], empty[kStages];
  std::uint64_t queries_full[kQueryStages], queries_empty[kQueryStages];
};

using TileCursor = RingCursor<kStages>;
using QueryCursor = RingCursor<kQueryStages>;

// What a block does at a time: one head of up to kItemRows rows of a sequence. `base` is the
// position of the first row of the first tile, which the step may not have.
struct Item {
  int first_row, sequence, head, base, first_position, last_position;
  __device__ __forceinline__ int Tiles() const { return last_position / kTilePositions + 1; }
};

__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Rows of 128 bytes, their 16-byte units swizzled as the matrix units read them; panels of 64
// columns one after the other.
template <int kRows>
__device__ __forceinline__ std::uint32_t UnitAt(int row, int unit) {
  return unit / 8 * (kRows * 128) + row * 128 + (unit ^ row) % 8 * 16;
}

template <int kHeadDim>
class PrefillBlock {
  static constexpr int kUnits = kHeadDim / 8;
  static constexpr int kTileBytes = kTilePositions * kHeadDim * 2;  // of keys, or of values
  static constexpr int kQueryBytes = kItemRows * kHeadDim * 2;
  static constexpr int kDimensions = kHeadDim / 8;
  using Scores = float[kTilePositions / 2];
  using Weights = std::uint32_t[kTilePositions / 16][4];
  using Sums = float[kHeadDim / 2];

 public:
  static constexpr int kSharedBytes =
      kQueryStages * kQueryBytes + kStages * 2 * kTileBytes + static_cast<int>(sizeof(Shared));

  __device__ PrefillBlock(const DeviceAttentionArgs& args, unsigned char* memory)
      : args_(args),
        plan_(args.plan),
        queries_(SharedAddress(memory)),
        ring_(queries_ + kQueryStages * kQueryBytes),
        shared_(*reinterpret_cast<Shared*>(memory + kQueryStages * kQueryBytes +
                                           kStages * 2 * kTileBytes)),
        heads_(static_cast<int>(args.heads)),
        items_(*plan_.prefill_tiles * heads_) {}

  __device__ void Run() {
    if (threadIdx.x == 0) InitBarriers();
    __syncthreads();
    if (threadIdx.x < kWarpgroups * 128) {
      asm volatile("setmaxnreg.inc.sync.aligned.u32 216;");
      WaitForEarlierKernels();
      Attend();
    } else {
      asm volatile("setmaxnreg.dec.sync.aligned.u32 72;");
      WaitForEarlierKernels();
      Load(static_cast<int>(threadIdx.x) - kWarpgroups * 128);
    }
  }

 private:
  __device__ void InitBarriers() {
    for (int i = 0; i < kStages; ++i) {
      InitBarrier(&shared_.full[i], 128);
      InitBarrier(&shared_.empty[i], kWarpgroups * 4);
    }
    for (int i = 0; i < kQueryStages; ++i) {
      InitBarrier(&shared_.queries_full[i], 128);
      InitBarrier(&shared_.queries_empty[i], kWarpgroups * 4);
    }
    FenceBarrierInit();
  }

  // Late tiles of a sequence first: they have the most positions. Any item where there is none.
  __device__ __forceinline__ Item ItemAt(int at) const {
    const int from_end = max(items_ - 1 - at, 0);
    const int4 tile = __ldg(reinterpret_cast<const int4*>(plan_.tiles + from_end / heads_));
    return {.first_row = tile.x,
            .sequence = tile.w,
            .head = from_end % heads_,
            .base = tile.z / kItemRows * kItemRows,
            .first_position = tile.z,
            .last_position = tile.z + tile.y - 1};
  }

  // ---- Four warps. Positions behind the last one are zeros: what the cache holds there may be
  // anything.
  __device__ void Load(int thread) {
    constexpr int kRowsAtOnce = 128 / kUnits;
    static_assert(kBlockTokens % kRowsAtOnce == 0);
    constexpr std::int64_t kBlockElements = 2 * kBlockTokens * kHeadDim;  // of a head
    const int unit = thread % kUnits, first = thread / kUnits;
    const int kv_heads = static_cast<int>(args_.kv.kv_heads), group = heads_ / kv_heads;
    const auto* cache =
        static_cast<const __nv_bfloat16*>(args_.kv.cache) + first * kHeadDim + unit * 8;
    TileCursor at{.slot = 0, .parity = 1};
    QueryCursor queries{.slot = 0, .parity = 1};
    Item next = ItemAt(static_cast<int>(blockIdx.x));
    for (int i = static_cast<int>(blockIdx.x); i < items_; i += static_cast<int>(gridDim.x)) {
      const Item item = next;
      next = ItemAt(i + static_cast<int>(gridDim.x));
      const std::int32_t* table = args_.rows.block_tables + item.sequence * args_.rows.max_blocks;
      const int last_block = item.last_position / kBlockTokens, kv_head = item.head / group;
      int blocks[kTileBlocks];
      const auto find_blocks = [&](int tile) {
#pragma unroll
        for (int j = 0; j < kTileBlocks; ++j)
          blocks[j] = __ldg(table + min(tile * kTileBlocks + j, last_block));
      };
      find_blocks(0);
      WaitBarrier(&shared_.queries_empty[queries.slot], queries.parity);
      LoadQueries(item, queries_ + queries.slot * kQueryBytes, first, unit);
      ArriveAfterCopies(&shared_.queries_full[queries.slot]);
      queries.Next();
      for (int tile = 0; tile < item.Tiles(); ++tile) {
        const __nv_bfloat16* from[kTileBlocks];
#pragma unroll
        for (int j = 0; j < kTileBlocks; ++j)
          from[j] = cache + (std::int64_t{blocks[j]} * kv_heads + kv_head) * kBlockElements;
        find_blocks(tile + 1);
        const int valid = item.last_position - tile * kTilePositions + 1;
        const std::uint32_t keys = ring_ + at.slot * 2 * kTileBytes, values = keys + kTileBytes;
        WaitBarrier(&shared_.empty[at.slot], at.parity);
#pragma unroll
        for (int row = 0; row < kTilePositions; row += kRowsAtOnce) {
          const std::uint32_t place = UnitAt<kTilePositions>(row + first, unit);
          const __nv_bfloat16* key = from[row / kBlockTokens] + row % kBlockTokens * kHeadDim;
          const int bytes = row + first < valid ? 16 : 0;
          CopyToShared(keys + place, key, bytes);
          CopyToShared(values + place, key + kBlockTokens * kHeadDim, bytes);
        }
        ArriveAfterCopies(&shared_.full[at.slot]);
        at.Next();
      }
    }
  }

  // Rows that the step does not have are zeros.
  __device__ __forceinline__ void LoadQueries(const Item& item, std::uint32_t to, int first,
                                              int unit) const {
    constexpr int kRowsAtOnce = 128 / kUnits;
    const std::int64_t stride = std::int64_t{heads_} * kHeadDim;
    const auto* q = static_cast<const __nv_bfloat16*>(args_.q) + item.first_row * stride +
                    item.head * kHeadDim + unit * 8;
#pragma unroll 4
    for (int row = first; row < kItemRows; row += kRowsAtOnce) {
      const int position = item.base + row;
      const bool real = position >= item.first_position && position <= item.last_position;
      CopyToShared(to + UnitAt<kItemRows>(row, unit),
                   q + (real ? position - item.first_position : 0) * stride, real ? 16 : 0);
    }
  }

  // ---- A warpgroup.
  __device__ void Attend() {
    const int warpgroup = static_cast<int>(threadIdx.x) / 128;
    TileCursor at;
    QueryCursor queries;
    Item next = ItemAt(static_cast<int>(blockIdx.x));
    for (int i = static_cast<int>(blockIdx.x); i < items_; i += static_cast<int>(gridDim.x)) {
      const Item item = next;
      next = ItemAt(i + static_cast<int>(gridDim.x));
      const int begin = item.base + warpgroup * kTileRows;  // of the tile's positions
      const int tiles = item.Tiles();
      const bool idle = begin > item.last_position || begin + kTileRows <= item.first_position;
      const int own = idle ? 0 : begin / kTilePositions + 1;
      WaitBarrier(&shared_.queries_full[queries.slot], queries.parity);
      // All lanes have seen the phase before one of them lets the next begin.
      __syncwarp();
      if (own > 0) AttendTile(item, begin, own, queries, &at);
      if (own == 0) ReleaseQueries(queries.slot);
      for (int tile = own; tile < tiles; ++tile) {  // the other warpgroup's alone
        WaitBarrier(&shared_.full[at.slot], at.parity);
        __syncwarp();
        Release(at.slot);
        at.Next();
      }
      queries.Next();
    }
  }

  __device__ __forceinline__ void AttendTile(const Item& item, int begin, int tiles,
                                             const QueryCursor& queries, TileCursor* at) {
    const std::uint32_t q =
        queries_ + queries.slot * kQueryBytes + begin % kItemRows * 128;  // the tile's rows
    Scores scores;
    Sums sums = {};
    Weights weights;
    float maximum[2] = {-INFINITY, -INFINITY}, total[2] = {}, old[2];
    TileCursor next = *at;
    Score(q, next, scores);
    WaitForProducts<0>();
    if (tiles == 1) Mask(scores);
    Weigh(scores, maximum, total, old);
    Pack(scores, weights);
    // While the values of one tile are added, the scores of the next one become weights.
    for (int tile = 1; tile < tiles; ++tile) {
      next.Next();
      Score(q, next, scores);
      AddValues(weights, Values(at->slot), sums);
      WaitForProducts<1>();
      if (tile + 1 == tiles) Mask(scores);
      Weigh(scores, maximum, total, old);
      WaitForProducts<0>();
      Release(at->slot);
      at->Next();
#pragma unroll
      for (int i = 0; i < kHeadDim / 2; ++i) sums[i] *= old[i / 2 % 2];
      Pack(scores, weights);
    }
    AddValues(weights, Values(at->slot), sums);
    WaitForProducts<0>();
    Release(at->slot);
    at->Next();
    ReleaseQueries(queries.slot);
    Store(item, begin, total, sums);
  }

  __device__ __forceinline__ std::uint32_t Values(int slot) const {
    return ring_ + slot * 2 * kTileBytes + kTileBytes;
  }

  // scores [64, 64] = q · kᵀ, begun.
  __device__ __forceinline__ void Score(std::uint32_t q, const TileCursor& at, Scores& scores) {
    WaitBarrier(&shared_.full[at.slot], at.parity);
    FenceForAsyncProxy();
    const std::uint32_t keys = ring_ + at.slot * 2 * kTileBytes;
    BeginProducts();
#pragma unroll
    for (int step = 0; step < kHeadDim / 16; ++step) {
      const int panel = step / 4, within = step % 4 * 2;
      MultiplyAdd<kTilePositions>(scores, SwizzledOperand(q + panel * kItemRows * 128) + within,
                                  SwizzledOperand(keys + panel * kTilePositions * 128) + within,
                                  step > 0);
    }
    CommitProducts();
  }

  // A thread's values stand in rows 16 · warp + lane / 4 and 8 further on, columns 2 · (lane mod 4)
  // and + 1 of every 8. Rows and columns of the last tile are the same positions.
  __device__ __forceinline__ static void Mask(Scores& scores) {
    const int thread = static_cast<int>(threadIdx.x) % 128, lane = thread % 32;
    const int row = thread / 32 * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < kTilePositions / 2; ++i) {
      const int column = i / 4 * 8 + lane % 4 * 2 + i % 2;
      if (column > row + i / 2 % 2 * 8) scores[i] = -INFINITY;
    }
  }

  // Scores become weights; `old` scales what the tiles before have given to the new maximum.
  __device__ __forceinline__ void Weigh(Scores& scores, float (&maximum)[2], float (&total)[2],
                                        float (&old)[2]) const {
    const float scale = args_.scale * kLog2E;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float highest = maximum[half];
#pragma unroll
      for (int i = 0; i < kTilePositions / 2; ++i) {
        if (i / 2 % 2 == half) highest = fmaxf(highest, scores[i]);
      }
      highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 1));
      highest = fmaxf(highest, __shfl_xor_sync(~0u, highest, 2));
      const float shift = highest * scale;
      old[half] = Exp2((maximum[half] - highest) * scale);
      maximum[half] = highest;
      total[half] *= old[half];
#pragma unroll
      for (int i = 0; i < kTilePositions / 2; ++i) {
        if (i / 2 % 2 != half) continue;
        scores[i] = Exp2(fmaf(scores[i], scale, -shift));
        total[half] += scores[i];
      }
    }
  }

  __device__ __forceinline__ static void Pack(const Scores& scores, Weights& weights) {
#pragma unroll
    for (int i = 0; i < kTilePositions / 4; ++i)
      weights[i / 4][i % 4] = PackBf16(scores[2 * i], scores[2 * i + 1]);
  }

  // sums += weights · values, begun.
  __device__ __forceinline__ static void AddValues(const Weights& weights, std::uint32_t values,
                                                   Sums& sums) {
    BeginProducts();
#pragma unroll
    for (int step = 0; step < kTilePositions / 16; ++step) {
      constexpr int kPanelBytes = kTilePositions * 128, kStepBytes = 16 * 128;
      MultiplyAddTransposed<kHeadDim>(sums, weights[step],
                                      TransposedOperand(values + step * kStepBytes, kPanelBytes));
    }
    CommitProducts();
  }

  // Every warp by itself: where a warpgroup has no products, nothing else keeps its warps together,
  // and one that is a round of the ring behind would wait for a phase that is over.
  __device__ __forceinline__ void Release(int slot) {
    if (threadIdx.x % 32 == 0) Arrive(&shared_.empty[slot]);
  }
  __device__ __forceinline__ void ReleaseQueries(int slot) {
    if (threadIdx.x % 32 == 0) Arrive(&shared_.queries_empty[slot]);
  }

  __device__ __forceinline__ void Store(const Item& item, int begin, float (&total)[2],
                                        const Sums& sums) const {
    const int thread = static_cast<int>(threadIdx.x) % 128, lane = thread % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      total[half] += __shfl_xor_sync(~0u, total[half], 1);
      total[half] += __shfl_xor_sync(~0u, total[half], 2);
      const int position = begin + thread / 32 * 16 + lane / 4 + half * 8;
      if (position < item.first_position || position > item.last_position) continue;
      const std::int64_t row = item.first_row + position - item.first_position;
      const float share = 1.0f / total[half];
      auto* y = static_cast<__nv_bfloat16*>(args_.y) + (row * heads_ + item.head) * kHeadDim +
                lane % 4 * 2;
#pragma unroll
      for (int d = 0; d < kDimensions; ++d) {
        *reinterpret_cast<std::uint32_t*>(y + d * 8) =
            PackBf16(sums[4 * d + 2 * half] * share, sums[4 * d + 2 * half + 1] * share);
      }
    }
  }

  const DeviceAttentionArgs& args_;
  const AttentionPlanLayout plan_;
  const std::uint32_t queries_, ring_;
  Shared& shared_;
  const int heads_, items_;
};

template <int kHeadDim>
__global__ void __launch_bounds__(kThreads, 1)
    PrefillAttention(const __grid_constant__ DeviceAttentionArgs args) {
  extern __shared__ __align__(1024) unsigned char memory[];
  LetNextKernelStart();
  PrefillBlock<kHeadDim>(args, memory).Run();
}

template <int kHeadDim>
void LaunchPrefill(const DeviceAttentionArgs& args, CudaStream stream) {
  auto* kernel = PrefillAttention<kHeadDim>;
  constexpr int kSharedBytes = PrefillBlock<kHeadDim>::kSharedBytes;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (allowed != cudaSuccess) return;
  Launch(kernel, dim3(static_cast<unsigned>(MultiprocessorCount())), kThreads, kSharedBytes,
         Overlap::kWithEarlier, stream, args);
}

}  // namespace

void PrefillAttentionCuda(const DeviceAttentionArgs& args, CudaStream stream) {
  if (args.rows.max_rows == 0) return;
  if (args.kv.head_dim == 64) {
    LaunchPrefill<64>(args, stream);
  } else {
    LaunchPrefill<128>(args, stream);
  }
}

}  // namespace penstock
