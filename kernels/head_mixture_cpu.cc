#include <cmath>
#include <vector>

#include "kernels/head_mixture.h"

namespace penstock {
namespace {

// ln Σ exp(scores).
float LogSumExp(const float* scores, int count) {
  float top = scores[0];
  for (int e = 1; e < count; ++e) top = scores[e] > top ? scores[e] : top;
  float sum = 0.0f;
  for (int e = 0; e < count; ++e) sum += std::exp(scores[e] - top);
  return top + std::log(sum);
}

}  // namespace

void HeadMixtureCpu(const HeadMixtureArgs& args) {
  const float log_heads = std::log(static_cast<float>(args.heads));
  std::vector<float> column(args.heads);
  std::vector<float> norm(args.heads);
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const float* scores = args.scores + row * args.heads * args.experts;
    for (int h = 0; h < args.heads; ++h) {
      norm[h] = LogSumExp(scores + h * args.experts, args.experts);
    }
    for (int e = 0; e < args.experts; ++e) {
      for (int h = 0; h < args.heads; ++h) column[h] = scores[h * args.experts + e] - norm[h];
      args.logits[row * args.experts + e] = LogSumExp(column.data(), args.heads) - log_heads;
    }
  }
}

}  // namespace penstock
