#include "kernels/simd_element.h"
#include "kernels/simd_math.h"

namespace penstock::PENSTOCK_ISA {
namespace {

// Behind the last logit: its exponential is zero, and its difference to another such is finite.
constexpr float kPadding = -1e30f;

PENSTOCK_INLINE Vec LoadLogits(const float* from, std::int64_t left) {
  if (left >= kLanes) return F32::Load(from);
  float padded[kLanes];
  for (int i = 0; i < kLanes; ++i) padded[i] = i < left ? from[i] : kPadding;
  return F32::Load(padded);
}

PENSTOCK_INLINE float Largest(const float* logits, std::int64_t count) {
  float top = logits[0];
  for (std::int64_t i = 1; i < count; ++i) top = logits[i] > top ? logits[i] : top;
  return top;
}

}  // namespace

// With a and b less their largest: Σ e^a (a − b) / Σ e^a − ln Σ e^a + ln Σ e^b.
float Divergence(const float* a, const float* b, std::int64_t count) {
  const Vec top_a = Splat(Largest(a, count)), top_b = Splat(Largest(b, count));
  Vec sum_a = {}, sum_b = {}, difference = {};
  for (std::int64_t i = 0; i < count; i += kLanes) {
    const Vec x = LoadLogits(a + i, count - i) - top_a, y = LoadLogits(b + i, count - i) - top_b;
    const Vec e = Exp(x);
    sum_a += e;
    sum_b += Exp(y);
    difference = MulAdd(e, x - y, difference);
  }
  const float total_a = SumLanes(sum_a);
  const Vec ratio = Splat(SumLanes(sum_b)) / Splat(total_a);
  const float kl = SumLanes(difference) / total_a + Log(ratio)[0];
  return kl > 0 ? kl : 0;
}

}  // namespace penstock::PENSTOCK_ISA
