// What a sparse layer adds up (kernels/combine.h), the residual addition behind it, and the next
// layer's norm.
#pragma once

#include <cstdint>

#include "kernels/cuda_stream.h"
#include "kernels/element.h"

namespace penstock {

// Device pointers; rows from *num_rows on are padding. M rounds to bf16.
struct ExpertCombineArgs {
  const std::int32_t* num_rows = nullptr;   // [1]
  std::int64_t max_rows = 0;                // of the launch
  Element partial_element = Element::kF32;  // fp32 or bf16
  // [rows, k + shared, d]: outputs of the chosen experts in order of rank, then of the slices of
  // the shared expert, before weights and gate.
  const void* partials = nullptr;
  const float* weights = nullptr;             // [rows, k], before M
  const float* shared_gate_logits = nullptr;  // [rows], as RouteRows gives them (rounded)
  std::int64_t k = 0;                         // 1 to 16
  std::int64_t shared = 0;                    // slices; 0: no shared expert
  void* x = nullptr;                          // [rows, d] bf16: the residual stream, in and out
  const void* norm_weight = nullptr;          // [d] bf16: of the norm behind the layer
  float epsilon = 0;
  std::int64_t d = 0;  // multiple of 8, at most 8,192
  void* y = nullptr;   // [rows, d] bf16, out; may not overlap x
};

// x = M(x + M(M(Σ_i M(M(w_i) · M(expert_i))) + M(M(σ(gate)) · M(Σ_s shared_s)))), sums in fp32, in
// order; y = M(norm_weight · M(x / √(mean(x²) + ε))).
void ExpertCombineCpu(const ExpertCombineArgs& args);
void ExpertCombineCuda(const ExpertCombineArgs& args, CudaStream stream);

}  // namespace penstock
