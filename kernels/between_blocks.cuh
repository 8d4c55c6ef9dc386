// What blocks that are at work together have of each other: words in global memory by which one
// knows what another has written (PTX ISA, "Memory Consistency Model", scope gpu), and one clock.
#pragma once

#include <cstdint>

namespace penstock {

// What its writer wrote before a release is visible behind it.
__device__ __forceinline__ std::int32_t LoadAcquire(const std::int32_t* from) {
  std::int32_t value;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}

// Makes what the block has written before visible to whoever acquires the sum. One thread, behind a
// barrier of the block.
__device__ __forceinline__ void AddRelease(std::int32_t* to, std::int32_t value) {
  asm volatile("red.release.gpu.global.add.s32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}

// Both: the value before. Of a warp, behind a barrier of its own, it speaks for its lanes alone.
__device__ __forceinline__ std::int32_t AddAcquireRelease(std::int32_t* to, std::int32_t value) {
  std::int32_t old;
  asm volatile("atom.add.acq_rel.gpu.global.s32 %0, [%1], %2;"
               : "=r"(old)
               : "l"(to), "r"(value)
               : "memory");
  return old;
}

__device__ __forceinline__ std::uint64_t GlobalNanoseconds() {
  std::uint64_t time;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
  return time;
}

}  // namespace penstock
