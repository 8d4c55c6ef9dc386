// Loops over logits that several _cpu.cc files share.
#pragma once

#include "kernels/isa_builds.h"
#include "kernels/logits.h"

namespace penstock {

PENSTOCK_DECLARE_BUILDS(bool Widen(Element element, const void* from, float* to,
                                   std::int64_t count);
                        float Highest(const float* values, std::int64_t count);
                        float SumExp(const float* values, std::int64_t count, float shift);
                        std::int64_t FirstOfHighest(const float* values, std::int64_t count))

// The largest of `count` ≥ 1 values.
inline float HighestCpu(const float* values, std::int64_t count) {
  PENSTOCK_CALL_BUILD(Highest, values, count);
  return 0;
}

// Σ exp(value − shift).
inline float SumExpCpu(const float* values, std::int64_t count, float shift) {
  PENSTOCK_CALL_BUILD(SumExp, values, count, shift);
  return 0;
}

// The lowest index of the largest value.
inline std::int64_t FirstOfHighestCpu(const float* values, std::int64_t count) {
  PENSTOCK_CALL_BUILD(FirstOfHighest, values, count);
  return 0;
}

}  // namespace penstock
