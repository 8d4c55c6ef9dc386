// From router logits to a decision: softmax, the k largest, their weights (Penstock's routers page,
// Contract, steps 2 to 4; the order of operations is that of Hugging Face's Qwen2-MoE gate).
#pragma once

#include <cstdint>

namespace penstock {

struct SoftmaxTopKArgs {
  const float* logits;  // [rows, experts]
  std::int64_t rows;
  int experts;           // at least 1
  int k;                 // 1 to experts
  bool normalize;        // divide the chosen weights by their sum (`norm_topk_prob`)
  std::int32_t* ids;     // [rows, k], out: in falling order of logit, ties to the lower id
  float* weights;        // [rows, k], out
  float* probabilities;  // [rows, experts], out: softmax over all experts
  bool* finite;          // [rows], out: false where a logit was NaN or infinite
};

// Row by row, in fp32, in a fixed order. A row that is not finite gets ids 0 … k-1 and zeros.
void SoftmaxTopKCpu(const SoftmaxTopKArgs& args);

}  // namespace penstock
