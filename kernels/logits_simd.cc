#include "kernels/logits.h"
#include "kernels/simd_element.h"
#include "kernels/simd_math.h"

namespace penstock::PENSTOCK_ISA {

bool Widen(Element element, const void* from, float* to, std::int64_t count) {
  bool finite = true;
  WithElement(element, [&](auto e) {
    using E = decltype(e);
    const auto* source = static_cast<const typename E::Stored*>(from);
    Vec zero = {};  // NaN times 0 and infinity times 0 are NaN
    for (std::int64_t i = 0; i < count; i += kLanes) {
      const int part = Lanes(count - i);
      const Vec v = LoadUpTo<E>(source + i, part);
      zero += v * Vec{};
      StoreUpTo<F32>(to + i, v, part);
    }
    finite = SumLanes(zero) == 0.0f;
  });
  return finite;
}

float Highest(const float* values, std::int64_t count) {
  Vec highest = Splat(-__builtin_inff());
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const int part = Lanes(count - i);
    // The last vector is padded with its first element, which changes no maximum.
    Vec v = Splat(values[i]);
    if (part == kLanes) {
      v = F32::Load(values + i);
    } else {
      for (int n = 0; n < part; ++n) v[n] = values[i + n];
    }
    highest = Max(v, highest);
  }
  return MaxLane(highest);
}

float SumExp(const float* values, std::int64_t count, float shift) {
  Vec sum = {};
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const int part = Lanes(count - i);
    if (part == kLanes) {
      sum += Exp(F32::Load(values + i) - Splat(shift));
    } else {
      Vec v = Splat(-__builtin_inff());
      for (int n = 0; n < part; ++n) v[n] = values[i + n] - shift;
      sum += Exp(v);
    }
  }
  return SumLanes(sum);
}

// The first index of the largest value.
std::int64_t FirstOfHighest(const float* values, std::int64_t count) {
  const float highest = Highest(values, count);
  for (std::int64_t i = 0; i < count; ++i) {
    if (values[i] == highest) return i;
  }
  return 0;
}

}  // namespace penstock::PENSTOCK_ISA
