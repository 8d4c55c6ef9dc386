#include "kernels/simd_element.h"
#include "kernels/simd_math.h"

namespace penstock::PENSTOCK_ISA {

float Entropy(const float* probabilities, std::int64_t count) {
  Vec sum = {};
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const Vec p = LoadUpTo<F32>(probabilities + i, Lanes(count - i));
    // Below the normal range p ln p is under 1e-36: zero.
    const IntVec counts = p >= Splat(0x1p-126f);
    const Vec safe = Select(counts, p, Splat(1.0f));
    sum += Select(counts, p * Log(safe), Vec{});
  }
  return -SumLanes(sum);
}

}  // namespace penstock::PENSTOCK_ISA
