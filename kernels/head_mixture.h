// The mean over heads of a softmax over experts, as logits.
#pragma once

#include <cstdint>

namespace penstock {

struct HeadMixtureArgs {
  const float* scores;  // [rows, heads, experts]
  std::int64_t rows;
  int heads;      // at least 1
  int experts;    // at least 1
  float* logits;  // [rows, experts], out
};

// logits[e] = logsumexp over heads of log_softmax(scores[head])[e], minus ln heads: the log of the
// mean, without ever taking the log of 0. A row with a NaN or +infinity gives NaN. fp32, row by
// row, in a fixed order.
void HeadMixtureCpu(const HeadMixtureArgs& args);

}  // namespace penstock
