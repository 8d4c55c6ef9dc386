// What a sparse layer adds up: the routed experts' outputs under their weights, and the gated
// shared expert.
#pragma once

#include <cstdint>

#include "kernels/element.h"

namespace penstock {

struct CombineArgs {
  Element element = Element::kF32;
  const void* expert_output = nullptr;  // [slots, d], in any order of slots
  const std::int32_t* slots =
      nullptr;                     // [rows, k]: where each row's outputs stand, in order of rank
  const float* weights = nullptr;  // [rows, k], before the rounding M to `element`
  std::int64_t k = 0;
  const void* shared_output = nullptr;  // [rows, d]
  const void* shared_gate = nullptr;    // [rows]: logits
  void* y = nullptr;                    // [rows, d], out
  std::int64_t d = 0;
};

// Rows first … last − 1: y = M(M(Σ_i M(M(w_i) · expert_i)) + M(M(σ(shared_gate)) · shared)), the
// sum in fp32 in order of rank, as Hugging Face's default (`grouped_mm`) experts.
void CombineCpu(const CombineArgs& args, std::int64_t first, std::int64_t last);

}  // namespace penstock
