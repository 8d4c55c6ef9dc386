// The kernel behind the experts' and the dense products for few rows: y = x Wᵀ where the time is
// that of reading W once. Persistent CTAs stream tiles of W through shared memory; nothing ever
// drains: while the last stages of one tile are multiplied, the first ones of the next are loading.
//
// A CTA's warps: one or two warpgroups multiply (wgmma, the weights as the 64-row operand, so that
// a handful of tokens wastes little); one thread asks the copy engine for weights, and does so for
// the tiles that are known in advance before the previous kernel has finished; four warps gather
// token rows; one warp cuts the experts' lists into jobs. Sums run over the columns in order, 16 at
// a time, in every shape of tile: bits do not depend on the batch.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/between_blocks.cuh"
#include "kernels/cuda_launch.cuh"
#include "kernels/streaming_jobs.cuh"
#include "kernels/streaming_order.cuh"
#include "kernels/streaming_results.cuh"
#include "kernels/streaming_tiles.cuh"
#include "kernels/tile_copy.cuh"
#include "kernels/wgmma.cuh"

namespace penstock::streaming {

template <Product kProduct, typename Shape>
class Kernel {
 public:
  __device__ __forceinline__ Kernel(const Params& params, const TileMap* map, unsigned char* memory)
      : p_(params),
        map_(map),
        shared_(*reinterpret_cast<Shared*>(memory)),
        places_(reinterpret_cast<int*>(memory + sizeof(Shared))),
        turn_(reinterpret_cast<unsigned char*>(places_ + 2 * kMaxTokens)),
        jobs_(params, turn_ + Shape::kTurnBytes),
        weights_(SharedAddress(memory) + HeaderBytes<Shape>(params)),
        tokens_(weights_ + params.weight_slots * Shape::kWeightSlotBytes) {}

  __device__ __forceinline__ void Run() {
    const int warp = threadIdx.x / 32;
    if (threadIdx.x == 0) InitBarriers();
    __syncthreads();
    LetNextKernelStart();
    if (warp < kConsumerWarps) {
      if constexpr (Shape::kTradesRegisters) asm volatile("setmaxnreg.inc.sync.aligned.u32 208;");
      if (!StartsEarly()) WaitForEarlierKernels();
      Multiply();
    } else {
      if constexpr (Shape::kTradesRegisters) asm volatile("setmaxnreg.dec.sync.aligned.u32 48;");
      if (warp == kConsumerWarps) {
        if (threadIdx.x % 32 == 0) LoadWeights();
      } else if (warp == kConsumerWarps + 1) {
        ListJobs();
      } else if (warp < kConsumerWarps + 2 + kTokenWarps) {
        if (StartsEarly()) {
          WaitForRows();
        } else {
          WaitForEarlierKernels();
        }
        GatherTokens(threadIdx.x - (kConsumerWarps + 2) * 32);
      }
    }
  }

 private:
  static constexpr int kRows = Shape::kRows, kMaxTokens = Shape::kMaxTokens;
  static constexpr int kColumns = Shape::kColumns, kPanels = Shape::kPanels;
  static constexpr int kBlocks = Shape::kBlocks, kConsumerWarps = Shape::kConsumerWarps;
  static constexpr int kOutputs = kOutputsOf<kProduct, Shape>;
  static constexpr int kPanelBytes = kMaxTokens * 128;  // of tokens

  __device__ __forceinline__ void InitBarriers() {
    for (int i = 0; i < p_.weight_slots; ++i) {
      InitBarrier(&shared_.weights_full[i], 1);
      InitBarrier(&shared_.weights_empty[i], kConsumerWarps);
    }
    for (int i = 0; i < p_.token_slots; ++i) {
      InitBarrier(&shared_.tokens_full[i], kTokenWarps * 32);
      InitBarrier(&shared_.tokens_empty[i], kConsumerWarps);
    }
    for (int i = 0; i < kTileQueue; ++i) InitBarrier(&shared_.tile_ready[i], 1);
    if constexpr (Shape::kBesideOthers) shared_.earlier_ended = 0;
    InitBarrier(&shared_.jobs_ready, 32);
    FenceBarrierInit();
  }

  // What is computed of rows without lists overwrites nothing that is still in use: that a row is
  // there means that all kernels before the one which made it have ended. What needs lists comes
  // through ListJobs, which waits for the kernel in front.
  __device__ __forceinline__ bool StartsEarly() const {
    return kProduct == Product::kGateUp && Shape::kBesideOthers && p_.x_ready != nullptr;
  }
  __device__ __forceinline__ void WaitForRows() const {
    if (threadIdx.x % 32 == 0) {
      while (LoadAcquire(p_.x_ready) < p_.rows) {
      }
    }
    __syncwarp();
  }

  __device__ __forceinline__ bool ListsItself() const {
    return Shape::kBesideOthers && !IsDense(kProduct) && p_.expert_ids != nullptr;
  }

  // The warp that lists.
  __device__ __forceinline__ void AwaitEarlierKernels() {
    WaitForEarlierKernels();
    if constexpr (Shape::kBesideOthers) {
      *static_cast<volatile int*>(&shared_.earlier_ended) = 1;
      if (kProduct == Product::kDown && p_.x_ready != nullptr && blockIdx.x == 0) *p_.x_ready = 0;
    }
  }

  // One warp.
  __device__ __forceinline__ void ListJobs() {
    if constexpr (IsDense(kProduct)) {
      AwaitEarlierKernels();
    } else {
      int count;
      if (ListsItself()) {
        // The warp has nothing else to do until the choices are there, so it goes through this once
        // over whatever stands there: most of what it costs is fetching its instructions.
#pragma unroll 1
        for (int pass = 0; pass < 2; ++pass) {
          if (pass == 1) AwaitEarlierKernels();
          count = jobs_.TakeChoices();
        }
      } else {
        AwaitEarlierKernels();
        count = jobs_.TakeLists();
      }
      if (threadIdx.x % 32 == 0) shared_.job_count = count;
      Arrive(&shared_.jobs_ready);
    }
  }

  __device__ __forceinline__ TileOrder<kProduct, Shape> Order() const { return {p_, jobs_}; }

  // ---- Weights: one thread.
  // Memory has nothing to do until the lists are there. If every expert has one job, listed tile
  // `nth` is of expert nth / row_groups: brought to L2 at about the pace of memory, whoever gets it
  // in the end.
  __device__ __forceinline__ void Guess(int nth) const {
    constexpr long long kCycles = Shape::kWeightSlotBytes / 11;  // a 132nd of 2.5 TB/s at 1.8 GHz
    const int expert = nth / p_.row_groups, group = nth % p_.row_groups;
    if (expert >= p_.experts) return;
    const int stages = min(p_.guesses, (p_.n + kColumns - 1) / kColumns);
    for (int stage = 0; stage < stages; ++stage) {
      const long long begin = clock64();
#pragma unroll
      for (int box = 0; box < kRows / 64 * kPanels; ++box) {
        PrefetchGatedBox(map_, stage * kColumns + box % kPanels * kPanelColumns,
                         group * (kRows / 16) + box / kPanels * 4, expert);
      }
      do {
        if (BarrierPassed(&shared_.jobs_ready, 0)) return;
      } while (clock64() - begin < kCycles);
    }
  }

  __device__ __forceinline__ void LoadWeights() {
    PrefetchMap(map_);
    const int fixed = Order().FixedTiles();
    const std::uint64_t policy = StreamingPolicy();
    bool jobs_known = false;
    Cursor at{.slot = 0, .parity = 1};
    [[maybe_unused]] Cursor landing;
    [[maybe_unused]] int issued = 0;
    [[maybe_unused]] bool ended = false;
    int index = blockIdx.x;
    for (int i = 0;; ++i) {
      const Tile tile = Order().At(index, fixed, [&](int listed) {
        if (!jobs_known) {
          if constexpr (kProduct == Product::kGateUp && Shape::kBesideOthers) Guess(listed);
          WaitBarrier(&shared_.jobs_ready, 0);
          jobs_known = true;
        }
        return shared_.job_count;
      });
      shared_.tiles[i % kTileQueue] = tile;
      Arrive(&shared_.tile_ready[i % kTileQueue]);
      if (tile.matrix < 0) break;
      // Asked for a whole tile before it is needed.
      index = p_.next_tile != nullptr ? gridDim.x + atomicAdd(p_.next_tile, 1) : index + gridDim.x;
      const int stages = Order().Stages(tile);
      for (int stage = 0; stage < stages; ++stage) {
        const int column = Order().FirstColumn(tile) + stage * kColumns;
        if constexpr (Shape::kBesideOthers) {
          if (!ended && issued++ >= p_.paced) {
            ended = AwaitLanding(landing);
            landing.Next(p_.weight_slots);
          }
        }
        std::uint64_t* full = &shared_.weights_full[at.slot];
        const std::uint32_t to = weights_ + at.slot * Shape::kWeightSlotBytes;
        WaitBarrier(&shared_.weights_empty[at.slot], at.parity);
        ArriveExpecting(full, Shape::kWeightSlotBytes);
#pragma unroll
        for (int box = 0; box < kRows / 64 * kPanels; ++box) {
          const int block = box / kPanels, panel = column + box % kPanels * kPanelColumns;
          if constexpr (kProduct == Product::kGateUp) {
            LoadGatedBox(to + box * kBoxBytes, map_, panel, tile.group * (kRows / 16) + block * 4,
                         tile.matrix, full, policy);
          } else {
            LoadBox(to + box * kBoxBytes, map_, panel, tile.group * kRows + block * 64,
                    IsDense(kProduct) ? 0 : tile.matrix, full, policy);
          }
        }
        at.Next(p_.weight_slots);
      }
    }
    if (p_.next_tile != nullptr) LeaveCounterAtZero();
  }

  // Memory that is asked for more than it can carry answers everyone late. As long as an earlier
  // kernel is at work, whose few loads others wait for, weights therefore come at a measured pace:
  // the next stage when that at `landing` is there. True: no earlier kernel is at work.
  __device__ __forceinline__ bool AwaitLanding(const Cursor& landing) {
    while (*static_cast<volatile int*>(&shared_.earlier_ended) == 0) {
      if (BarrierPassed(&shared_.weights_full[landing.slot], landing.parity)) return false;
    }
    return true;
  }

  __device__ __forceinline__ void LeaveCounterAtZero() {
    __threadfence();
    if (atomicAdd(p_.next_tile + 1, 1) != static_cast<int>(gridDim.x) - 1) return;
    p_.next_tile[0] = 0;
    p_.next_tile[1] = 0;
  }

  __device__ __forceinline__ Tile NextTile(int i) const {
    WaitBarrier(&shared_.tile_ready[i % kTileQueue], i / kTileQueue % 2);
    return shared_.tiles[i % kTileQueue];
  }

  // ---- Tokens. The row of h or y that a tile's token has; `row` is its row of the batch.
  __device__ __forceinline__ int Place(const Tile& tile, int token, int* row) const {
    if constexpr (IsDense(kProduct)) {
      *row = tile.first + token;
      return tile.matrix * p_.rows + *row;
    }
    if (tile.matrix >= p_.experts) {
      *row = tile.first + token;
      return *row * (p_.k + p_.shared) + p_.k + tile.matrix - p_.experts;
    }
    // In memory they are written while this kernel runs, if it started early.
    const int slot = ListsItself()          ? jobs_.Slot(tile.first + token)
                     : Shape::kBesideOthers ? __ldcg(p_.slots + tile.first + token)
                                            : p_.slots[tile.first + token];
    *row = slot / p_.k;
    return slot + *row * p_.shared;
  }

  // kTokenWarps warps: kUnits threads carry a row's part of a stage, 16 bytes each, in the order
  // that SwizzledOperand describes.
  __device__ __forceinline__ void GatherTokens(int thread) {
    constexpr int kUnits = kColumns / 8, kRowsAtOnce = kTokenWarps * 32 / kUnits;
    static_assert(kRowsAtOnce % 8 == 0 && kMaxTokens % kRowsAtOnce == 0);
    const int unit = thread % kUnits, token = thread / kUnits;
    const std::uint32_t place = unit / 8 * kPanelBytes + token * 128 + ((unit ^ token) % 8) * 16;
    const auto* x = reinterpret_cast<const uint4*>(p_.x);
    Cursor at{.slot = 0, .parity = 1};
    for (int i = 0;; ++i) {
      const Tile tile = NextTile(i);
      if (tile.matrix < 0) break;
      int from[kMaxTokens / kRowsAtOnce];  // in units
#pragma unroll
      for (int j = 0; j < kMaxTokens / kRowsAtOnce; ++j) {
        const int t = j * kRowsAtOnce + token;
        from[j] = -1;
        if (t >= tile.count) continue;
        int row;
        const int place_of = Place(tile, t, &row);
        from[j] = (kProduct == Product::kDown ? place_of : row) * (p_.n / 8) + unit;
      }
      const int stages = Order().Stages(tile), end = Order().EndColumn(tile);
      for (int stage = 0; stage < stages; ++stage) {
        const int column = Order().FirstColumn(tile) + stage * kColumns;
        const std::uint32_t to = tokens_ + at.slot * Shape::kTokenSlotBytes + place;
        const bool inside = column + unit * 8 < end;
        WaitBarrier(&shared_.tokens_empty[at.slot], at.parity);
#pragma unroll
        for (int j = 0; j < kMaxTokens / kRowsAtOnce; ++j) {
          if (from[j] < 0) continue;
          CopyToShared(to + j * kRowsAtOnce * 128, inside ? x + from[j] + column / 8 : x,
                       inside ? 16 : 0);
        }
        ArriveAfterCopies(&shared_.tokens_full[at.slot]);
        at.Next(p_.token_slots);
      }
    }
  }

  // ---- Products.
  __device__ __forceinline__ void Multiply() {
    Cursor weights, tokens;
    for (int i = 0;; ++i) {
      const Tile tile = NextTile(i);
      if (tile.matrix < 0) break;
      constexpr int kNarrowest = kBlocks == 1 ? 8 : 16;
      MultiplyNarrowest<kNarrowest>(tile, places_ + i % 2 * kMaxTokens, &weights, &tokens);
    }
  }

  // By straight-line code for the narrowest width that holds the tile's tokens: powers of two where
  // the weights are what costs, steps of 16 where every token does.
  template <int kTokens>
  __device__ __forceinline__ void MultiplyNarrowest(const Tile& tile, int* places, Cursor* weights,
                                                    Cursor* tokens) {
    if constexpr (kTokens < kMaxTokens) {
      constexpr int kNext = kBlocks == 1 ? kTokens * 2 : kTokens + 16;
      if (tile.count > kTokens) return MultiplyNarrowest<kNext>(tile, places, weights, tokens);
    }
    MultiplyTile<kTokens>(tile, places, weights, tokens);
  }

  // The first kTokens rows of the tokens' slots; what stands in those beyond tile.count reaches
  // only sums that nobody keeps.
  template <int kTokens>
  __device__ __forceinline__ void MultiplyTile(const Tile& tile, int* places, Cursor* weights,
                                               Cursor* tokens) {
    const int thread = threadIdx.x, warpgroup = thread / 128;
    int row, place = -1;  // asked for before the products, needed after them
    if (thread < tile.count) place = Place(tile, thread, &row);
    float sum[kBlocks][kTokens / 2];
#pragma unroll
    for (int block = 0; block < kBlocks; ++block) {
#pragma unroll
      for (int i = 0; i < kTokens / 2; ++i) sum[block][i] = 0.0f;
    }
    const int stages = Order().Stages(tile);
    [[maybe_unused]] int weights_done = 0, tokens_done = 0;
    for (int stage = 0; stage < stages; ++stage) {
      const std::uint64_t w = SwizzledOperand(weights_ + weights->slot * Shape::kWeightSlotBytes +
                                              warpgroup * kBlocks * kPanels * kBoxBytes);
      const std::uint64_t x = SwizzledOperand(tokens_ + tokens->slot * Shape::kTokenSlotBytes);
      WaitBarrier(&shared_.tokens_full[tokens->slot], tokens->parity);
      FenceForAsyncProxy();
      WaitBarrier(&shared_.weights_full[weights->slot], weights->parity);
      BeginProducts();
#pragma unroll
      for (int i = 0; i < kColumns / 16; ++i) {
        const int panel = i / 4, step = i % 4 * 2;
#pragma unroll
        for (int block = 0; block < kBlocks; ++block)
          MultiplyAdd<kTokens>(sum[block], w + (block * kPanels + panel) * (kBoxBytes / 16) + step,
                               x + panel * (kPanelBytes / 16) + step, true);
      }
      CommitProducts();
      if constexpr (kBlocks == 1) {  // memory bounds these: the slot is wanted back at once
        WaitForProducts<0>();
        Release(weights->slot, tokens->slot);
      } else if (stage > 0) {  // here L2 or the products do: the stage before, during this one's
        WaitForProducts<1>();
        Release(weights_done, tokens_done);
      }
      weights_done = weights->slot;
      tokens_done = tokens->slot;
      weights->Next(p_.weight_slots);
      tokens->Next(p_.token_slots);
    }
    if constexpr (kBlocks > 1) {
      WaitForProducts<0>();
      Release(weights_done, tokens_done);
    }
    if (thread < kTokens) places[thread] = place;
    asm volatile("bar.sync 1, %0;" ::"n"(kConsumerWarps * 32) : "memory");
    const Results<kProduct, Shape> results(p_, turn_);
#pragma unroll
    for (int block = 0; block < kBlocks; ++block)
      results.template Store<kTokens>(tile.group, warpgroup * kBlocks + block, sum[block], places);
  }

  __device__ __forceinline__ void Release(int weight_slot, int token_slot) {
    if (threadIdx.x % 32 != 0) return;
    Arrive(&shared_.weights_empty[weight_slot]);
    Arrive(&shared_.tokens_empty[token_slot]);
  }

  const Params& p_;
  const TileMap* map_;
  Shared& shared_;
  int* const places_;          // [2, kMaxTokens]
  unsigned char* const turn_;  // [warps, 2, 512]
  JobList<kMaxTokens> jobs_;
  const std::uint32_t weights_, tokens_;  // the rings
};

template <Product kProduct, typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1)
    StreamingProduct(const __grid_constant__ Params params, const __grid_constant__ TileMap map) {
  extern __shared__ __align__(1024) unsigned char memory[];
  Kernel<kProduct, Shape>(params, &map, memory).Run();
}

}  // namespace penstock::streaming
