// The experts' products for many rows (a prompt's): y = x Wᵀ for lists of rows with a W each, where
// the matrix units are what costs. Persistent blocks run through tiles of 256 rows of weights by up
// to 160 rows of x, all of it brought by the copy engine; while one warpgroup stores its results,
// the other one multiplies, and the first stages of the next tile are loading.
//
// Blocks work in pairs (clusters), each with its own part of an expert's rows: each loads half of a
// stage's weights, for both. That takes a third from what L2 gives out, the next limit. Sums run
// over the columns in order, 16 at a time, as in streaming_product.cuh.
//
// A block's warps: two warpgroups multiply, each 128 rows of weights by all rows of the block; one
// thread loads; three warps bring rows into the order of the lists, which gate·up wants after the
// shared experts' tiles. All blocks are at work at once: a block for each multiprocessor.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cluster.cuh"
#include "kernels/cuda_launch.cuh"
#include "kernels/grouped_results.cuh"
#include "kernels/grouped_rows.cuh"
#include "kernels/grouped_tiles.cuh"
#include "kernels/tile_copy.cuh"
#include "kernels/wgmma.cuh"

namespace penstock::grouped {

inline constexpr int kWarpgroups = 2;
inline constexpr int kConsumerWarps = kWarpgroups * 4;
inline constexpr int kThreads = (kConsumerWarps + 4) * 32;
inline constexpr int kSlots = 4;       // stages on their way
inline constexpr int kLead = 2;        // stages between the warpgroups
inline constexpr int kTileQueue = 16;  // a tile has at least one stage
static_assert(kTileQueue >= kSlots + 2);
inline constexpr int kBoxBytes = kTileRows / 2 * 128;  // half of a stage's weights
inline constexpr int kWeightBytes = 2 * kBoxBytes;
inline constexpr int kTokenBytes = kMaxTokens * 128;
inline constexpr int kTokenBoxRows = 32;  // of MakeRowMap
inline constexpr int kRingBytes = kSlots * (kWeightBytes + kTokenBytes);

struct alignas(16) Shared {
  std::uint64_t full[kSlots], empty[kSlots];
  std::uint64_t tile_ready[kTileQueue], index_ready[kTileQueue];
  Tile tiles[kTileQueue];
  int indices[kTileQueue];
  alignas(16) unsigned char turn[kConsumerWarps][2 * 512];
  int places[RowLister::kRows * RowLister::kMostRanks];
};

// The rings, Shared, jobs.
__host__ __device__ constexpr int SharedBytes(int experts) {
  return kRingBytes + static_cast<int>(sizeof(Shared)) +
         (experts + 2) * static_cast<int>(sizeof(Job));
}

using Cursor = RingCursor<kSlots>;

struct Maps {
  TileMap weights;  // MakeGroupedGatedMap or MakeGroupedMap
  TileMap listed;   // MakeRowMap of the lists' rows
  TileMap shared;   // of the batch's
};

template <Product kProduct>
class Kernel {
 public:
  __device__ __forceinline__ Kernel(const Params& params, const Maps& maps, unsigned char* memory)
      : p_(params),
        maps_(maps),
        shared_(*reinterpret_cast<Shared*>(memory + kRingBytes)),
        order_(params, reinterpret_cast<Job*>(memory + kRingBytes + sizeof(Shared))),
        weights_(SharedAddress(memory)),
        tokens_(weights_ + kSlots * kWeightBytes),
        rank_(RankInCluster()) {}

  __device__ __forceinline__ void Run() {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    if (threadIdx.x == 0) InitBarriers();
    ClusterBarrier();
    LetNextKernelStart();
    if (warp < kConsumerWarps) {
      asm volatile("setmaxnreg.inc.sync.aligned.u32 224;");
      WaitForEarlierKernels();
      Multiply();
    } else {
      asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
      WaitForEarlierKernels();
      if (warp == kConsumerWarps) {
        order_.Make();
        if (threadIdx.x % 32 == 0) Load();
        __syncwarp();
      } else if constexpr (kProduct == Product::kGateUp) {
        const int thread = static_cast<int>(threadIdx.x) - (kConsumerWarps + 1) * 32;
        RowLister(p_, shared_.places, thread).Run();
        if (thread == 0) LeaveCountersAtZero();
      }
    }
    ClusterBarrier();  // the neighbour writes here no more
  }

 private:
  __device__ __forceinline__ void InitBarriers() {
    for (int i = 0; i < kSlots; ++i) {
      InitBarrier(&shared_.full[i], 1);
      InitBarrier(&shared_.empty[i], kPair * kWarpgroups);
    }
    for (int i = 0; i < kTileQueue; ++i) {
      InitBarrier(&shared_.tile_ready[i], 1);
      InitBarrier(&shared_.index_ready[i], 1);
    }
    FenceBarrierInit();
  }

  // ---- The columns of a tile: slice by slice.
  __device__ __forceinline__ int StagesOfSlice() const { return (p_.n + kColumns - 1) / kColumns; }
  __device__ __forceinline__ int Slices(const Tile& tile) const {
    return tile.matrix >= p_.experts ? p_.shared_slices : 1;
  }

  // ---- One thread. The pair's first block says which tile is next.
  __device__ __forceinline__ void Load() {
    PrefetchMap(&maps_.weights);
    PrefetchMap(&maps_.listed);
    PrefetchMap(&maps_.shared);
    const std::uint64_t once = StreamingPolicy(), again = KeepingPolicy();
    const int clusters = static_cast<int>(gridDim.x) / kPair, stages = StagesOfSlice();
    bool rows_listed = kProduct == Product::kDown;
    Cursor at{.slot = 0, .parity = 1};
    int next = static_cast<int>(blockIdx.x) / kPair;
    for (int i = 0;; ++i) {
      const int turn = i % kTileQueue;
      const Tile tile = order_.At(IndexOf(next, i), rank_);
      shared_.tiles[turn] = tile;
      Arrive(&shared_.tile_ready[turn]);
      if (tile.matrix < 0) break;
      // A whole tile before its turn.
      if (rank_ == 0) next = clusters + atomicAdd(p_.next_tile, 1);
      const bool listed = tile.matrix < p_.experts;
      if (listed && !rows_listed) {
        RowLister::WaitForAll(p_);
        rows_listed = true;
      }
      const TileMap* rows = listed ? &maps_.listed : &maps_.shared;
      const int boxes = (tile.count + kTokenBoxRows - 1) / kTokenBoxRows;
      const std::uint64_t policy = tile.alone ? once : again;
      for (int slice = 0; slice < Slices(tile); ++slice) {
        for (int stage = 0; stage < stages; ++stage) {
          std::uint64_t* full = &shared_.full[at.slot];
          const int column = stage * kColumns;
          WaitBarrier(&shared_.empty[at.slot], at.parity);
          ArriveExpecting(full, kWeightBytes + boxes * kTokenBoxRows * 128);
          LoadWeights(weights_ + at.slot * kWeightBytes, tile, slice, column, full, policy);
          const std::uint32_t to = tokens_ + at.slot * kTokenBytes;
          for (int box = 0; box < boxes; ++box) {
            LoadBox(to + box * kTokenBoxRows * 128, rows, column, slice,
                    tile.first + box * kTokenBoxRows, full, again);
          }
          at.Next();
        }
      }
    }
    LeaveCountersAtZero();
  }

  // What both blocks take for tile i.
  __device__ __forceinline__ int IndexOf(int next, int i) const {
    const int turn = i % kTileQueue;
    if (rank_ == 0) {
      StoreInCluster(InCluster(&shared_.indices[turn], 1), next);
      ReleaseInCluster(InCluster(&shared_.index_ready[turn], 1));
      return next;
    }
    AcquireInCluster(&shared_.index_ready[turn], i / kTileQueue % 2);
    return *const_cast<volatile int*>(&shared_.indices[turn]);
  }

  __device__ __forceinline__ void LoadWeights(std::uint32_t to, const Tile& tile, int slice,
                                              int column, std::uint64_t* full,
                                              std::uint64_t policy) const {
    const int matrix = tile.matrix + slice;
    to += rank_ * kBoxBytes;
    if constexpr (kProduct == Product::kGateUp) {
      const int sixteen = tile.group * (kTileRows / 32) + rank_ * (kTileRows / 64);
      LoadGatedBoxForBoth(to, &maps_.weights, column, sixteen, matrix, full, policy);
    } else {
      const int row = tile.group * kTileRows + rank_ * (kTileRows / 2);
      LoadBoxForBoth(to, &maps_.weights, column, row, matrix, full, policy);
    }
  }

  __device__ __forceinline__ void LeaveCountersAtZero() const {
    __threadfence();
    constexpr int kThreadsOfBlock = kProduct == Product::kGateUp ? 2 : 1;  // that say they are done
    if (atomicAdd(p_.next_tile + 1, 1) != static_cast<int>(gridDim.x) * kThreadsOfBlock - 1) return;
    p_.next_tile[0] = 0;
    p_.next_tile[1] = 0;
    if constexpr (kProduct == Product::kGateUp) *p_.listed_by = 0;
  }

  // ---- Products.
  __device__ __forceinline__ void Multiply() {
    Cursor at;
    for (int i = 0;; ++i) {
      WaitBarrier(&shared_.tile_ready[i % kTileQueue], i / kTileQueue % 2);
      const Tile tile = shared_.tiles[i % kTileQueue];
      if (tile.matrix < 0) break;
      MultiplyNarrowest<16>(tile, &at);
    }
  }

  // By straight-line code for the narrowest width that holds the tile's tokens; the widths that
  // large experts' parts have are finer.
  template <int kTokens>
  __device__ __forceinline__ void MultiplyNarrowest(const Tile& tile, Cursor* at) {
    if constexpr (kTokens < kMaxTokens) {
      if (tile.count > kTokens)
        return MultiplyNarrowest<kTokens + (kTokens < 96 ? 16 : 8)>(tile, at);
    }
    MultiplyTile<kTokens>(tile, at);
  }

  // The first kTokens rows of the tokens' slots; what stands in those beyond tile.count, which may
  // be 0, reaches only sums that nobody keeps.
  template <int kTokens>
  __device__ __forceinline__ void MultiplyTile(const Tile& tile, Cursor* at) {
    const int warpgroup = static_cast<int>(threadIdx.x) / 128;
    const Places<kProduct> places(p_, tile);
    float sum[2][kTokens / 2];
#pragma unroll
    for (int block = 0; block < 2; ++block) {
#pragma unroll
      for (int i = 0; i < kTokens / 2; ++i) sum[block][i] = 0.0f;
    }
    const int stages = Slices(tile) * StagesOfSlice();
    // The second warpgroup begins a stage later: while one stores, the other one multiplies.
    const bool staggered = stages > kSlots * 2;
    if (staggered && warpgroup == 1) asm volatile("bar.sync 1, 256;" ::: "memory");
    int done = 0;
    for (int stage = 0; stage < stages; ++stage) {
      // Block b has every other group of 8 rows, from group b on.
      constexpr int kGroupBytes = 1024;
      const std::uint64_t w = SwizzledOperand(
          weights_ + at->slot * kWeightBytes + warpgroup * kBoxBytes, 2 * kGroupBytes);
      const std::uint64_t x = SwizzledOperand(tokens_ + at->slot * kTokenBytes);
      WaitBarrier(&shared_.full[at->slot], at->parity);
      BeginProducts();
#pragma unroll
      for (int step = 0; step < kColumns / 16; ++step) {
#pragma unroll
        for (int block = 0; block < 2; ++block) {
          MultiplyAdd<kTokens>(sum[block], w + block * (kGroupBytes / 16) + step * 2, x + step * 2,
                               true);
        }
      }
      CommitProducts();
      if (stage > 0) {  // the stage before, during this one's
        WaitForProducts<1>();
        Release(done);
      }
      LetSecondBegin(staggered && warpgroup == 0 && stage == kLead);
      done = at->slot;
      at->Next();
    }
    WaitForProducts<0>();
    Release(done);
    StoreTile<kProduct, kTokens>(p_, tile, sum, places, shared_.turn[threadIdx.x / 32]);
  }

  // No branch, which would make the products in flight wait for each other.
  __device__ __forceinline__ static void LetSecondBegin(bool now) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %0, 0;\n@p bar.arrive 1, 256;\n}" ::"r"(
                     static_cast<int>(now))
                 : "memory");
  }

  // One thread of the warpgroup speaks for it: the products have read their operands together.
  __device__ __forceinline__ void Release(int slot) const {
    const int thread = static_cast<int>(threadIdx.x) % 128;
    if (thread % 32 == 0 && thread / 32 < kPair)
      ArriveInCluster(InCluster(&shared_.empty[slot], thread / 32));
  }

  const Params& p_;
  const Maps& maps_;
  Shared& shared_;
  const TileOrder order_;
  const std::uint32_t weights_, tokens_;  // the rings
  const int rank_;
};

template <Product kProduct>
__global__ void __launch_bounds__(kThreads, 1)
    GroupedProduct(const __grid_constant__ Params params, const __grid_constant__ Maps maps) {
  extern __shared__ __align__(1024) unsigned char memory[];
  Kernel<kProduct>(params, maps, memory).Run();
}

}  // namespace penstock::grouped
