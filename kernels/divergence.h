// Kullback-Leibler divergence of two routers' choices, for the measures of shadow routing.
#pragma once

#include <cstdint>

namespace penstock {

// KL(softmax(a) ‖ softmax(b)) in nats, never below 0: Σ p_a (ln p_a − ln p_b) with both logarithms
// from log-softmax, so that a probability that underflows costs what its logit says. fp32, in a
// fixed order. a, b: [count], finite; count at least 1.
float DivergenceCpu(const float* a, const float* b, std::int64_t count);

}  // namespace penstock
