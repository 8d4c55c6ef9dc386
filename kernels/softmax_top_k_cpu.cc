#include <algorithm>
#include <cmath>

#include "kernels/softmax_top_k.h"

namespace penstock {
namespace {

// Insertion into a list of k: k is small (4 to 8), so this beats a heap. A later equal never passes
// an earlier one.
void TopK(const float* logits, int experts, int k, std::int32_t* ids) {
  int held = 0;
  for (int e = 0; e < experts; ++e) {
    if (held == k && !(logits[e] > logits[ids[k - 1]])) continue;
    int place = held < k ? held++ : k - 1;
    for (; place > 0 && logits[e] > logits[ids[place - 1]]; --place) ids[place] = ids[place - 1];
    ids[place] = e;
  }
}

void Softmax(const float* logits, int experts, float* p) {
  const float top = *std::max_element(logits, logits + experts);
  float sum = 0.0f;
  for (int e = 0; e < experts; ++e) {
    p[e] = std::exp(logits[e] - top);
    sum += p[e];
  }
  for (int e = 0; e < experts; ++e) p[e] /= sum;
}

}  // namespace

void SoftmaxTopKCpu(const SoftmaxTopKArgs& args) {
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const float* logits = args.logits + row * args.experts;
    float* p = args.probabilities + row * args.experts;
    std::int32_t* ids = args.ids + row * args.k;
    float* weights = args.weights + row * args.k;
    args.finite[row] =
        std::all_of(logits, logits + args.experts, [](float z) { return std::isfinite(z); });
    if (!args.finite[row]) {
      std::fill(p, p + args.experts, 0.0f);
      std::fill(weights, weights + args.k, 0.0f);
      for (int i = 0; i < args.k; ++i) ids[i] = i;
      continue;
    }
    Softmax(logits, args.experts, p);
    TopK(logits, args.experts, args.k, ids);
    float sum = 0.0f;
    for (int i = 0; i < args.k; ++i) {
      weights[i] = p[ids[i]];
      sum += weights[i];
    }
    if (!args.normalize) continue;
    for (int i = 0; i < args.k; ++i) weights[i] /= sum;
  }
}

}  // namespace penstock
