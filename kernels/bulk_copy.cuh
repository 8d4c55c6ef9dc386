// Barriers in shared memory, and copies into it that complete on them.
#pragma once

#include <cstdint>

namespace penstock {

__device__ __forceinline__ std::uint32_t SharedAddress(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void InitBarrier(std::uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)),
               "r"(arrivals)
               : "memory");
}

// Makes initialized barriers visible to the copy engine; before a __syncthreads or __syncwarp.
__device__ __forceinline__ void FenceBarrierInit() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Makes what ordinary stores have written to global memory visible to the copy engine.
__device__ __forceinline__ void FenceGlobalForCopies() {
  asm volatile("fence.proxy.async.global;" ::: "memory");
}

// Waits until the barrier has passed the phase of this parity.
__device__ __forceinline__ void WaitBarrier(std::uint64_t* barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(SharedAddress(barrier)),
      "r"(parity)
      : "memory");
}

// Whether it has.
__device__ __forceinline__ bool BarrierPassed(std::uint64_t* barrier, int parity) {
  std::uint32_t passed;
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\n"
      "selp.u32 %0, 1, 0, done;\n"
      "}"
      : "=r"(passed)
      : "r"(SharedAddress(barrier)), "r"(parity)
      : "memory");
  return passed != 0;
}

__device__ __forceinline__ std::uint64_t StreamingPolicy() {
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// Arrives, and lets the phase wait for `bytes` of the copy engine too.
__device__ __forceinline__ void ArriveExpecting(std::uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)),
               "r"(bytes)
               : "memory");
}

// What ordinary stores and CopyToShared wrote, and this thread knows of, becomes visible to wgmma
// and the copy engine.
__device__ __forceinline__ void FenceForAsyncProxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Copies `bytes` (multiple of 16) to shared memory; the barrier expects them.
__device__ __forceinline__ void BulkCopy(void* to, const void* from, int bytes,
                                         std::uint64_t* barrier, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4;" ::"r"(SharedAddress(to)),
      "l"(from), "r"(bytes), "r"(SharedAddress(barrier)), "l"(policy)
      : "memory");
}

}  // namespace penstock
