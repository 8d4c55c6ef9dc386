// From the product of the query, key and value projections to attention's inputs: biases, rotary
// embedding (kernels/rope.h), and keys and values written into the cache.
#pragma once

#include <cstdint>

#include "kernels/cuda_stream.h"
#include "kernels/element.h"
#include "kernels/kv_blocks.h"

namespace penstock {

// Device pointers. M rounds to bf16.
struct AttentionInputsArgs {
  StepRows rows = {};
  // [parts, part_rows, (heads + 2 · kv_heads) · head_dim]: queries, keys, values; fp32 parts are
  // added in order, bf16 has one.
  const void* qkv = nullptr;
  Element qkv_element = Element::kBF16;  // fp32 or bf16
  std::int64_t parts = 1;                // 1 to 8
  std::int64_t part_rows = 0;            // rows between parts
  const void* bias = nullptr;            // [(heads + 2 · kv_heads) · head_dim] bf16, or null
  // [positions, head_dim / 2, 2]: cosine and sine, rounded to bf16's values (RopeTableCpu).
  const float* rope = nullptr;
  std::int64_t heads = 0;
  KvBlocks kv = {};
  void* q = nullptr;  // [rows, heads, head_dim] bf16, out
};

// qkv = M(Σ parts + bias), then M(M(x · cos) + M(rotate_half(x) · sin)) of queries and keys.
// Padding rows touch neither q nor the cache.
void AttentionInputsCpu(const AttentionInputsArgs& args);
void AttentionInputsCuda(const AttentionInputsArgs& args, CudaStream stream);

}  // namespace penstock
