// Pairs of thread blocks (a cluster of two) that see each other's shared memory.
#pragma once

#include <cstdint>

#include "kernels/bulk_copy.cuh"
#include "kernels/tile_map.h"

namespace penstock {

__device__ __forceinline__ int RankInCluster() {
  int rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// All threads of the cluster, one after the other or together: what any wrote before, all see.
__device__ __forceinline__ void ClusterBarrier() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

// The same place in shared memory of block `rank`.
__device__ __forceinline__ std::uint32_t InCluster(const void* place, int rank) {
  std::uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;"
      : "=r"(address)
      : "r"(SharedAddress(place)), "r"(rank));
  return address;
}

// Says that this thread has read what the copy engine brought. Of what it wrote, another block
// sees nothing by that: a release for the whole cluster costs a microsecond.
__device__ __forceinline__ void ArriveInCluster(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// The same with all that this thread wrote.
__device__ __forceinline__ void ReleaseInCluster(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(barrier)
               : "memory");
}

__device__ __forceinline__ void StoreInCluster(std::uint32_t place, int value) {
  asm volatile("st.shared::cluster.s32 [%0], %1;" ::"r"(place), "r"(value) : "memory");
}

// WaitBarrier for what other blocks have released: once a tile, not once a stage.
__device__ __forceinline__ void AcquireInCluster(std::uint64_t* barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(SharedAddress(barrier)),
      "r"(parity)
      : "memory");
}

// LoadBox and LoadGatedBox (tile_copy.cuh) into the shared memory of both blocks, at the same
// place; each block's own barrier is told of the bytes.
__device__ __forceinline__ void LoadBoxForBoth(std::uint32_t to, const TileMap* map, int column,
                                               int row, int matrix, std::uint64_t* barrier,
                                               std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster.L2::cache_hint [%0], [%1, {%2, %3, %4}], [%5], %6, %7;" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(matrix), "r"(SharedAddress(barrier)),
      "h"(static_cast<std::uint16_t>(3)), "l"(policy)
      : "memory");
}

__device__ __forceinline__ void LoadGatedBoxForBoth(std::uint32_t to, const TileMap* map,
                                                    int column, int octet, int matrix,
                                                    std::uint64_t* barrier, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster.L2::cache_hint [%0], [%1, {%2, %3, %3, %4, %5}], [%6], %7, %8;" ::"r"(
          to),
      "l"(map), "r"(column), "r"(0), "r"(octet), "r"(matrix), "r"(SharedAddress(barrier)),
      "h"(static_cast<std::uint16_t>(3)), "l"(policy)
      : "memory");
}

// What more than one pair of blocks reads stays in L2 as other data does.
__device__ __forceinline__ std::uint64_t KeepingPolicy() {
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

}  // namespace penstock
