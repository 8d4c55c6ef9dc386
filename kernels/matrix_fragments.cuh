// A warp's tensor-core product of bf16 fragments. Layouts: PTX ISA, "mma.m16n8k16".
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace penstock {

// sum += a [16, 16] · b [16, 8], bf16 in, fp32 sums.
__device__ __forceinline__ void MultiplyAdd(float (&sum)[4], const std::uint32_t (&a)[4],
                                            std::uint32_t b_low, std::uint32_t b_high) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));
}

__device__ __forceinline__ std::uint32_t PackBf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(pair);
}

}  // namespace penstock
