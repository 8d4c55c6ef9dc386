// The lists of a layer's experts, made by the block that decided last.
#pragma once

#include <cstdint>

#include "kernels/route_block.cuh"

namespace penstock {

// Whether RouteRows makes the lists: nobody may want any, and of many rows ListExperts makes them.
__host__ __device__ inline bool MakesLists(const RouteRowsArgs& args) {
  return args.expert_offsets != nullptr && args.shape.max_rows < kRowsRoutedApart;
}

template <int kBlocks>
class ExpertLists {
 public:
  // Floats of shared memory.
  static std::int64_t Shared(const RouteShape& shape) {
    return 2 * SharedWords(shape) + shape.experts + 1;
  }

  __device__ ExpertLists(const RouteBlock<kBlocks>& block, float* shared)
      : b_(block),
        args_(block.args),
        scratch_(block.scratch),
        shared_(shared),
        experts_(block.experts),
        k_(static_cast<int>(block.args.shape.k)) {}

  // expert_offsets and slot_rows, from the bits that the decisions have set; the bits as the next
  // layer wants them.
  __device__ void Make() {
    const int rows = *args_.num_rows, words = (rows + 31) / 32;
    const auto shared_words = static_cast<int>(SharedWords(args_.shape));
    const bool small = experts_ * words <= shared_words;
    auto* offsets = reinterpret_cast<std::int32_t*>(shared_);  // [E + 1]
    auto* copied = reinterpret_cast<std::uint32_t*>(offsets + experts_ + 1);
    // Both [E, stride].
    const std::uint32_t* chosen = small ? copied : scratch_.chosen;
    std::int32_t* before =
        small ? reinterpret_cast<std::int32_t*>(copied + shared_words) : scratch_.before;
    const int stride = small ? words : static_cast<int>(scratch_.words);
    for (int i = static_cast<int>(threadIdx.x); i < experts_ * words && small; i += kRouteThreads) {
      std::uint32_t* from = scratch_.chosen + i / words * scratch_.words + i % words;
      copied[i] = __ldcg(from);
      __stcg(from, 0u);
    }
    __syncthreads();
    // Few words: a thread counts an expert's; many: a warp does.
    const int lanes = words <= 16 ? 1 : 32, lane = lanes == 1 ? 0 : b_.lane;
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
    if (b_.warp == 0) {
      int total = 0;
      for (int first = 0; first < experts_; first += 32) {
        const int expert = first + b_.lane;
        const int inclusive = InclusiveSum(expert < experts_ ? offsets[expert + 1] : 0);
        if (expert < experts_) {
          offsets[expert + 1] = args_.expert_offsets[expert + 1] = total + inclusive;
        }
        total += __shfl_sync(~0u, inclusive, 31);
      }
      if (b_.lane == 0) offsets[0] = args_.expert_offsets[0] = 0;
    }
    __syncthreads();
#pragma unroll 4
    for (int slot = static_cast<int>(threadIdx.x); slot < rows * k_; slot += kRouteThreads) {
      const int expert = __ldcg(args_.expert_ids + slot), row = slot / k_;
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

 private:
  // Words of chosen bits that are kept in shared memory: steps of up to some 2,000 rows.
  __host__ __device__ static std::int64_t SharedWords(const RouteShape& shape) {
    const std::int64_t words = shape.experts * ((shape.max_rows + 31) / 32);
    return words < 4096 ? words : 4096;
  }

  __device__ int InclusiveSum(int value) const {
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(~0u, value, step);
      if (b_.lane >= step) value += other;
    }
    return value;
  }

  const RouteBlock<kBlocks>& b_;
  const RouteRowsArgs& args_;
  const RouteScratch& scratch_;
  float* const shared_;
  const int experts_, k_;
};

}  // namespace penstock
