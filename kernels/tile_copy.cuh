// What a ring of tiles is filled and emptied with: a place in it, barriers, boxes of a TileMap by
// the copy engine (TMA), single 16-byte copies.
#pragma once

#include <cstdint>

#include "kernels/bulk_copy.cuh"
#include "kernels/tile_map.h"

namespace penstock {

// A place in a ring, and the parity of the round.
template <int kSlots>
struct RingCursor {
  int slot = 0;
  int parity = 0;
  __device__ __forceinline__ void Next() {
    if (++slot == kSlots) {
      slot = 0;
      parity ^= 1;
    }
  }
};

// ---- Barriers (mbarrier): a phase ends when all expected threads and announced bytes have come.
__device__ __forceinline__ void Arrive(std::uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared.b64 _, [%0];" ::"r"(SharedAddress(barrier)) : "memory");
}

// Arrives when this thread's earlier CopyToShared have landed.
__device__ __forceinline__ void ArriveAfterCopies(std::uint64_t* barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(SharedAddress(barrier))
               : "memory");
}

// 16 bytes from global memory, of which the first `valid` (0 or 16) are read and the rest are
// zeros.
__device__ __forceinline__ void CopyToShared(std::uint32_t to, const void* from, int valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid)
               : "memory");
}

// Four 8 × 8 squares of 2-byte elements, each held as by mma's results, written with rows and
// columns exchanged: lane l gives the address of 16 bytes, row l % 8 of square l / 8.
__device__ __forceinline__ void StoreSquaresTurned(std::uint32_t to,
                                                   const std::uint32_t (&squares)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(to),
               "r"(squares[0]), "r"(squares[1]), "r"(squares[2]), "r"(squares[3])
               : "memory");
}

// ---- The copy engine. `policy` says what L2 keeps.
__device__ __forceinline__ void PrefetchMap(const TileMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// One box of a MakeTileMap: rows `row`… of `matrix` at columns `column`….
__device__ __forceinline__ void LoadBox(std::uint32_t to, const TileMap* map, int column, int row,
                                        int matrix, std::uint64_t* barrier, std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(matrix), "r"(SharedAddress(barrier)), "l"(policy)
      : "memory");
}

// One box of a MakeGatedTileMap: gate and up rows 8·octet… of `matrix`.
__device__ __forceinline__ void LoadGatedBox(std::uint32_t to, const TileMap* map, int column,
                                             int octet, int matrix, std::uint64_t* barrier,
                                             std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%2, %3, %3, %4, %5}], [%6], %7;" ::"r"(to),
      "l"(map), "r"(column), "r"(0), "r"(octet), "r"(matrix), "r"(SharedAddress(barrier)),
      "l"(policy)
      : "memory");
}

// Brings the same box to L2.
__device__ __forceinline__ void PrefetchGatedBox(const TileMap* map, int column, int octet,
                                                 int matrix) {
  asm volatile(
      "cp.async.bulk.prefetch.tensor.5d.L2.global.tile [%0, {%1, %2, %2, %3, %4}];" ::"l"(map),
      "r"(column), "r"(0), "r"(octet), "r"(matrix)
      : "memory");
}

}  // namespace penstock
