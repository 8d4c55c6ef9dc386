// The batch's rows in the order of the experts' lists, so that the copy engine reads them in boxes:
// made by the warps of grouped_product.cuh that have nothing else to do, while the first tiles need
// the batch's own order.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/between_blocks.cuh"
#include "kernels/bulk_copy.cuh"
#include "kernels/grouped_tiles.cuh"

namespace penstock::grouped {

// All blocks' warps together, a few rows at a time.
class RowLister {
 public:
  static constexpr int kThreads = 96;
  static constexpr int kRows = 16;  // at a time
  static constexpr int kMostRanks = 16;

  // places: [kRows · kMostRanks] in shared memory.
  __device__ __forceinline__ RowLister(const Params& params, int* places, int thread)
      : p_(params), places_(places), thread_(thread) {}

  __device__ __forceinline__ void Run() const {
    for (int first = static_cast<int>(blockIdx.x) * kRows; first < p_.rows;
         first += static_cast<int>(gridDim.x) * kRows) {
      FindPlaces(first * p_.k);
      Copy(first);
      Together();
    }
    FenceGlobalForCopies();
    __threadfence();
    Together();
    if (thread_ == 0) atomicAdd(p_.listed_by, 1);
  }

  // One thread, before it has the copy engine read what all blocks have listed.
  __device__ __forceinline__ static void WaitForAll(const Params& params) {
    while (LoadAcquire(params.listed_by) < static_cast<int>(gridDim.x)) {
    }
    FenceGlobalForCopies();
  }

 private:
  __device__ __forceinline__ static void Together() {
    asm volatile("bar.sync 2, %0;" ::"n"(kThreads) : "memory");
  }

  // Lists rise, so that a thread finds in each the part that these rows have.
  __device__ __forceinline__ void FindPlaces(int first_slot) const {
    const int end_slot = first_slot + kRows * p_.k;
    for (int i = thread_; i < kRows * p_.k; i += kThreads) places_[i] = -1;
    Together();
    for (int expert = thread_; expert < p_.experts; expert += kThreads) {
      const int end = p_.expert_offsets[expert + 1];
      int low = p_.expert_offsets[expert], high = end;  // the first that is not before
      while (low < high) {
        const int middle = (low + high) / 2;
        if (p_.slots[middle] < first_slot) {
          low = middle + 1;
        } else {
          high = middle;
        }
      }
      for (; low < end; ++low) {
        const int slot = p_.slots[low];
        if (slot >= end_slot) break;
        places_[slot - first_slot] = low;
      }
    }
    Together();
  }

  // A warp for each row, which it reads once.
  __device__ __forceinline__ void Copy(int first) const {
    constexpr int kTogether = 4;
    const int units = p_.n / 8, lane = thread_ % 32, end = min(kRows, p_.rows - first);
    const auto* x = reinterpret_cast<const uint4*>(p_.x);
    auto* listed = reinterpret_cast<uint4*>(p_.listed);
    for (int r = thread_ / 32; r < end; r += kThreads / 32) {
      const uint4* row = x + std::int64_t{first + r} * units;
      for (int begin = lane; begin < units; begin += 32 * kTogether) {
        uint4 part[kTogether];
#pragma unroll
        for (int i = 0; i < kTogether; ++i) {
          if (begin + i * 32 < units) part[i] = row[begin + i * 32];
        }
        for (int rank = 0; rank < p_.k; ++rank) {
          const int place = places_[r * p_.k + rank];
          if (place < 0) continue;
          uint4* to = listed + std::int64_t{place} * units + begin;
#pragma unroll
          for (int i = 0; i < kTogether; ++i) {
            if (begin + i * 32 < units) to[i * 32] = part[i];
          }
        }
      }
    }
  }

  const Params& p_;
  int* const places_;
  const int thread_;
};

}  // namespace penstock::grouped
