// What tests that compare a kernel with its CPU twin share: random values, and how near is near.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/bf16.h"
#include "kernels/cuda_stream.h"

namespace penstock {

// Every test of a suite fails, none is skipped, when there is no GPU: the suite runs where one is.
inline void ExpectNoCudaError(const char* after) {
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess)
      << after << ": " << cudaGetErrorString(cudaGetLastError());
  ASSERT_EQ(cudaGetLastError(), cudaSuccess) << after;
}

inline constexpr std::uint16_t kPoison = 0x7fc1;  // a NaN that no kernel writes

// Normal values, as bf16.
inline std::vector<std::uint16_t> RandomBf16(std::size_t count, unsigned seed, float scale = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<std::uint16_t> values(count);
  for (std::uint16_t& value : values) value = Bf16OfFloat(normal(generator));
  return values;
}
inline std::vector<float> RandomFloats(std::size_t count, unsigned seed, float scale = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

// What rounding to bf16 in another place, once or twice, makes of a value: two units in the last
// place.
inline void ExpectNearBf16(const std::vector<std::uint16_t>& got,
                           const std::vector<std::uint16_t>& want, const char* what) {
  ASSERT_EQ(got.size(), want.size());
  std::size_t different = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (got[i] == want[i]) continue;
    ++different;
    const float a = FloatOfBf16(got[i]), b = FloatOfBf16(want[i]);
    ASSERT_LE(std::abs(a - b), 0x1p-6f * std::abs(b) + 1e-30f) << what << " " << i;
  }
  // Most values don't stand near a rounding boundary.
  EXPECT_LE(different, got.size() / 20 + 1) << what;
}

}  // namespace penstock
