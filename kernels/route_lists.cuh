// The lists of a layer's experts, made by the block that decided last.
#pragma once

#include <cstdint>

#include "kernels/route_products.cuh"
#include "kernels/route_scratch.cuh"

namespace penstock {

// Whether RouteRows makes the lists: nobody may want any, and of many rows ListExperts makes them.
__host__ __device__ inline bool MakesLists(const RouteRowsArgs& args) {
  return args.expert_offsets != nullptr && args.shape.max_rows < kRowsRoutedApart;
}

class ExpertLists {
 public:
  // Floats of shared memory.
  static std::int64_t Shared(const RouteShape& shape) {
    return 2 * kSharedWords + shape.experts + 1;
  }

  // shared_chosen, shared_ids: chosen bits and ids where one segment has all rows.
  __device__ ExpertLists(const RouteRowsArgs& args, const RouteScratch& scratch, float* shared,
                         const std::uint32_t* shared_chosen, const std::int32_t* shared_ids,
                         int num_segments)
      : args_(args),
        scratch_(scratch),
        shared_(shared),
        shared_chosen_(shared_chosen),
        shared_ids_(shared_ids),
        num_segments_(num_segments),
        warp_(static_cast<int>(threadIdx.x) / 32),
        lane_(static_cast<int>(threadIdx.x) % 32),
        experts_(static_cast<int>(args.shape.experts)),
        k_(static_cast<int>(args.shape.k)) {}

  // expert_offsets and slot_rows, from the bits that the decisions have set, if they are wanted of
  // this kernel; and the scratch as the next layer wants it.
  __device__ void Make() {
    if (MakesLists(args_)) MakeLists();
    for (int i = static_cast<int>(threadIdx.x); i < num_segments_; i += kRouteThreads) {
      scratch_.arrived[i] = 0;
    }
    if (threadIdx.x == 0) *scratch_.decided = 0;
  }

 private:
  // Words of chosen bits that fit into shared memory: steps of some 2,000 rows.
  static constexpr int kSharedWords = 4096;

  __device__ void MakeLists() {
    const int rows = *args_.num_rows, words = (rows + 31) / 32;
    const bool alone = num_segments_ == 1;  // then the block has it all in shared memory
    const bool small = experts_ * words <= kSharedWords;
    auto* offsets = reinterpret_cast<std::int32_t*>(shared_);  // [E + 1]
    auto* copied = reinterpret_cast<std::uint32_t*>(offsets + experts_ + 1);
    // Both [E, stride].
    const std::uint32_t* chosen = small ? copied : scratch_.chosen;
    std::int32_t* before =
        small ? reinterpret_cast<std::int32_t*>(copied + kSharedWords) : scratch_.before;
    const int stride = small ? words : static_cast<int>(scratch_.words);
    for (int i = static_cast<int>(threadIdx.x); i < experts_ * words && small; i += kRouteThreads) {
      if (alone) {
        copied[i] = shared_chosen_[i];
        continue;
      }
      std::uint32_t* from = scratch_.chosen + i / words * scratch_.words + i % words;
      copied[i] = __ldcg(from);
      __stcg(from, 0u);
    }
    __syncthreads();
    // Few words: a thread counts an expert's; many: a warp does.
    const int lanes = words <= 16 ? 1 : 32, lane = lanes == 1 ? 0 : lane_;
    for (int expert = static_cast<int>(threadIdx.x) / lanes; expert < experts_;
         expert += kRouteThreads / lanes) {
      int count = 0;
      for (int first = 0; first < words; first += lanes) {
        const int word = first + lane;
        const int own = word < words ? __popc(chosen[expert * stride + word]) : 0;
        int inclusive = own, total = own;
        if (lanes > 1) {
          inclusive = InclusiveSum(own);
          total = __shfl_sync(~0u, inclusive, 31);
        }
        if (word < words) before[expert * stride + word] = count + inclusive - own;
        count += total;
      }
      if (lane == 0) offsets[expert + 1] = count;
    }
    __syncthreads();
    if (warp_ == 0) {
      int total = 0;
      for (int first = 0; first < experts_; first += 32) {
        const int expert = first + lane_;
        const int inclusive = InclusiveSum(expert < experts_ ? offsets[expert + 1] : 0);
        if (expert < experts_) {
          offsets[expert + 1] = args_.expert_offsets[expert + 1] = total + inclusive;
        }
        total += __shfl_sync(~0u, inclusive, 31);
      }
      if (lane_ == 0) offsets[0] = args_.expert_offsets[0] = 0;
    }
    __syncthreads();
#pragma unroll 4
    for (int slot = static_cast<int>(threadIdx.x); slot < rows * k_; slot += kRouteThreads) {
      const int expert = alone ? shared_ids_[slot] : __ldcg(args_.expert_ids + slot);
      const int row = slot / k_;
      const int word = expert * stride + row / 32;
      const int place =
          offsets[expert] + before[word] + __popc(chosen[word] & ((1u << (row % 32)) - 1));
      args_.slot_rows[place] = slot;
    }
    if (!small) {
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < experts_ * words; i += kRouteThreads) {
        scratch_.chosen[i / words * scratch_.words + i % words] = 0;
      }
    }
  }

  __device__ int InclusiveSum(int value) const {
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(~0u, value, step);
      if (lane_ >= step) value += other;
    }
    return value;
  }

  const RouteRowsArgs& args_;
  const RouteScratch& scratch_;
  float* const shared_;
  const std::uint32_t* const shared_chosen_;
  const std::int32_t* const shared_ids_;
  const int num_segments_, warp_, lane_, experts_, k_;
};

}  // namespace penstock
