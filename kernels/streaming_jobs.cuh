// What the warp of streaming_product.cuh that lists does: which token rows of which experts go
// through together.
#pragma once

#include <cstdint>

#include "kernels/streaming_tiles.cuh"

namespace penstock::streaming {

// Rows of one expert that go through together.
struct Job {
  int first;  // into the slots
  std::uint16_t expert;
  std::uint16_t count;
};

// Jobs of at most kMaxTokens rows, in shared memory, by expert; each of an expert's about as large.
// Every method but Slot is one warp's.
template <int kMaxTokens>
class JobList {
 public:
  __device__ __forceinline__ JobList(const Params& params, void* memory)
      : p_(params),
        jobs_(static_cast<Job*>(memory)),
        slots_(reinterpret_cast<std::uint16_t*>(jobs_ + params.job_capacity)) {}

  // Of `memory`: jobs, and where they are listed from expert_ids the slots, and where each expert's
  // begin.
  __host__ __device__ static int Bytes(const Params& params) {
    const int own = params.expert_ids != nullptr ? params.rows * params.k + params.experts : 0;
    return params.job_capacity * static_cast<int>(sizeof(Job)) +
           own * static_cast<int>(sizeof(std::uint16_t));
  }

  __device__ __forceinline__ Job operator[](int job) const { return jobs_[job]; }

  // From expert_offsets; how many there are.
  __device__ __forceinline__ int TakeLists() {
    int listed = 0;
    for (int base = 0; base < p_.experts; base += 32) {
      const int expert = base + Lane();
      int first = 0, count = 0;
      if (expert < p_.experts) {
        first = p_.expert_offsets[expert];
        count = p_.expert_offsets[expert + 1] - first;
      }
      listed += Add(listed, expert, first, count);
    }
    return listed;
  }

  // From expert_ids, of which a lane takes every 32nd; how many there are.
  __device__ __forceinline__ int TakeChoices() {
    constexpr int kOwn = ExpertProductsArgs::kMaxOwnSlots / 32;
    const int lane = Lane(), slots = __ldcg(p_.num_rows) * p_.k;
    int ids[kOwn], before[kOwn];  // before: choices of the same expert
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int slot = 32 * i + lane;
      // Asked for before it is known how many there are.
      ids[i] = slot < p_.rows * p_.k ? __ldcg(p_.expert_ids + slot) : -1;
    }
    std::uint16_t* const firsts = slots_ + p_.rows * p_.k;  // [experts]: counts, then places
    for (int expert = lane; expert < p_.experts; expert += 32) firsts[expert] = 0;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      if (32 * i >= slots) break;
      const bool listed = 32 * i + lane < slots && ids[i] >= 0 && ids[i] < p_.experts;
      if (!listed) ids[i] = -1;
      const unsigned same = __match_any_sync(~0u, ids[i]);
      const int earlier = listed ? firsts[ids[i]] : 0;
      before[i] = earlier + __popc(same & ((1u << lane) - 1));
      __syncwarp();
      if (listed && before[i] == earlier)
        firsts[ids[i]] = static_cast<std::uint16_t>(earlier + __popc(same));
      __syncwarp();
    }
    int jobs = 0, placed = 0;
    for (int base = 0; base < p_.experts; base += 32) {
      const int expert = base + lane;
      const int count = expert < p_.experts ? firsts[expert] : 0;
      const int end = InclusiveSum(count), first = placed + end - count;
      if (expert < p_.experts) firsts[expert] = static_cast<std::uint16_t>(first);
      jobs += Add(jobs, expert, first, count);
      placed += __shfl_sync(~0u, end, 31);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      if (32 * i >= slots) break;
      if (ids[i] >= 0)
        slots_[firsts[ids[i]] + before[i]] = static_cast<std::uint16_t>(32 * i + lane);
    }
    __syncwarp();
    return jobs;
  }

  // Slot `at` of those that TakeChoices has sorted.
  __device__ __forceinline__ int Slot(int at) const { return slots_[at]; }

 private:
  __device__ __forceinline__ static int Lane() { return static_cast<int>(threadIdx.x) % 32; }

  // The jobs of a lane's expert, behind `listed` ones; how many the warp's lanes have.
  __device__ __forceinline__ int Add(int listed, int expert, int first, int count) {
    const int jobs = (count + kMaxTokens - 1) / kMaxTokens, size = ChunkOf(count, kMaxTokens);
    const int end = InclusiveSum(jobs);
    for (int i = 0; i < jobs; ++i)
      jobs_[listed + end - jobs + i] = {
          .first = first + i * size,
          .expert = static_cast<std::uint16_t>(expert),
          .count = static_cast<std::uint16_t>(min(size, count - i * size))};
    return __shfl_sync(~0u, end, 31);
  }

  __device__ __forceinline__ static int InclusiveSum(int value) {
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(~0u, value, step);
      if (Lane() >= step) value += other;
    }
    return value;
  }

  const Params& p_;
  Job* const jobs_;             // [job_capacity]
  std::uint16_t* const slots_;  // [rows·k], then [experts]
};

// What lies before the rings: Shared, the places of two tiles' tokens, room to turn results, jobs.
template <typename Shape>
__host__ __device__ int HeaderBytes(const Params& params) {
  const int bytes = static_cast<int>(sizeof(Shared) + 2 * Shape::kMaxTokens * sizeof(int)) +
                    Shape::kTurnBytes + JobList<Shape::kMaxTokens>::Bytes(params);
  return (bytes + 1023) / 1024 * 1024;
}

}  // namespace penstock::streaming
