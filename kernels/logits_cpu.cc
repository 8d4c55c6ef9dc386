#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/logits.h"
#include "kernels/logits_builds.h"

namespace penstock {

bool WidenCpu(Element element, const void* from, float* to, std::int64_t count) {
  PENSTOCK_CALL_BUILD(Widen, element, from, to, count);
  return false;
}

float LogSumExpCpu(const float* logits, std::int64_t count) {
  const float highest = HighestCpu(logits, count);
  return highest + std::log(SumExpCpu(logits, count, highest));
}

void TopIdsCpu(const float* logits, std::int64_t count, std::int64_t top, std::int32_t* ids) {
  if (top <= 0) return;
  const auto before = [logits](std::int32_t a, std::int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  };
  // A heap of the best so far, the worst of them in front: most logits fail one comparison.
  std::iota(ids, ids + top, 0);
  std::make_heap(ids, ids + top, before);
  for (std::int64_t i = top; i < count; ++i) {
    if (!(logits[i] > logits[ids[0]])) continue;
    std::pop_heap(ids, ids + top, before);
    ids[top - 1] = static_cast<std::int32_t>(i);
    std::push_heap(ids, ids + top, before);
  }
  std::sort_heap(ids, ids + top, before);
}

}  // namespace penstock
