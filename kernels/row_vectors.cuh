// Eight neighbouring elements of a row at a time, and sums over warps and blocks in an order that
// is always the same.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace penstock {

inline constexpr int kVector = 8;  // elements of 16 bytes of bf16

struct Vector8 {
  float v[kVector];
};

__device__ __forceinline__ float RoundToBf16OnDevice(float value) {
  return __bfloat162float(__float2bfloat16_rn(value));
}

__device__ __forceinline__ Vector8 Widen(uint4 packed) {
  const std::uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
  Vector8 result;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    result.v[2 * i] = __uint_as_float(words[i] << 16);
    result.v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
  return result;
}

__device__ __forceinline__ uint4 Narrow(const Vector8& vector) {
  std::uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(vector.v[2 * i], vector.v[2 * i + 1]);
    words[i] = reinterpret_cast<const std::uint32_t&>(pair);
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

// Vector `i` of bf16 elements that other kernels write: past the first-level cache.
__device__ __forceinline__ Vector8 LoadBf16(const void* from, std::int64_t i) {
  return Widen(__ldcg(static_cast<const uint4*>(from) + i));
}
// The same of weights, which nothing writes.
__device__ __forceinline__ Vector8 LoadBf16Weight(const void* from, std::int64_t i) {
  return Widen(__ldg(static_cast<const uint4*>(from) + i));
}
__device__ __forceinline__ void StoreBf16(void* to, std::int64_t i, const Vector8& vector) {
  static_cast<uint4*>(to)[i] = Narrow(vector);
}

__device__ __forceinline__ Vector8 LoadF32(const float* from, std::int64_t i) {
  const float4 low = __ldcg(reinterpret_cast<const float4*>(from) + 2 * i);
  const float4 high = __ldcg(reinterpret_cast<const float4*>(from) + 2 * i + 1);
  return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
}

// The sum over all lanes, the same bits in every lane.
__device__ __forceinline__ float WarpSum(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
  return value;
}

__device__ __forceinline__ float WarpMax(float value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    value = fmaxf(value, __shfl_xor_sync(~0u, value, step));
  }
  return value;
}

// The sum over the block's kWarps warps, in every thread. `shared`: [kWarps], not in use.
template <int kWarps>
__device__ __forceinline__ float BlockSum(float value, float* shared) {
  value = WarpSum(value);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) sum += shared[warp];
  return sum;
}

}  // namespace penstock
