// The first operator of a step: which token stands in each row, and its embedding.
#pragma once

#include <cstdint>

#include "kernels/cuda_stream.h"

namespace penstock {

// Device pointers. `num_rows` is read when the kernel runs; rows from there on are padding, and
// nothing of theirs is written.
struct EmbedRowsArgs {
  const std::int32_t* num_rows = nullptr;  // [1]
  std::int64_t max_rows = 0;               // of the launch
  // [rows]: a token id, or −1 − i for entry i of `sampled`.
  const std::int32_t* tokens = nullptr;
  const std::int32_t* sampled = nullptr;  // what the step before drew
  const void* table = nullptr;            // [vocab, d] bf16
  std::int64_t vocab = 0;
  std::int64_t d = 0;                    // multiple of 8
  std::int32_t* token_ids = nullptr;     // [rows], out: resolved
  void* x = nullptr;                     // [rows, d] bf16, out
  std::int32_t* failed_layer = nullptr;  // [rows], out: −1, no layer has failed yet; may be null
};

// A resolved id outside [0, vocab) takes token 0's embedding: its row failed in the step before,
// and whatever comes of it is thrown away.
void EmbedRowsCpu(const EmbedRowsArgs& args);
void EmbedRowsCuda(const EmbedRowsArgs& args, CudaStream stream);

// y[i] = x[rows[i]]: packs the rows whose logits are wanted.
struct GatherRowsArgs {
  const std::int32_t* count = nullptr;  // [1]
  std::int64_t max_count = 0;           // of the launch
  const std::int32_t* rows = nullptr;   // [count]
  const void* x = nullptr;              // [rows of x, d] bf16
  std::int64_t d = 0;                   // multiple of 8
  void* y = nullptr;                    // [count, d] bf16, out
};

void GatherRowsCpu(const GatherRowsArgs& args);
void GatherRowsCuda(const GatherRowsArgs& args, CudaStream stream);

}  // namespace penstock
