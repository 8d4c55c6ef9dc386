// Tokens drawn and scored on the device, as kernels/sample.h and kernels/logits.h define them: the
// same draws for a seed, up to the rounding of exponentials.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda_stream.h"

namespace penstock {

// What is wanted of one row of logits. In device memory, written for every step.
struct SampleRow {
  std::int32_t given_token = -1;  // at least 0: only its score is wanted (of a prompt)
  std::int32_t num_top = 0;       // most probable tokens wanted beside it, at most max_top
  float temperature = 1;          // 0: the largest logit, the lowest id among equals
  std::int32_t top_k = 0;         // 0: off
  double top_p = 1;               // 1: off
  double min_p = 0;               // 0: off
  std::uint64_t seed = 0;
  std::uint32_t choice = 0;
  std::uint32_t position = 0;  // of the draw: tokens of the answer before it
  float repetition_penalty = 1;
  float frequency_penalty = 0;
  float presence_penalty = 0;
  // Row of `histories`: prompt, then output, the token that the step before drew included. −1: none
  // is kept, and the penalties are off.
  std::int32_t history = -1;
  std::int32_t num_prompt = 0;
  std::int32_t num_output = 0;
  std::int32_t bias_first = 0;  // in bias_tokens and biases; each token at most once
  std::int32_t num_biases = 0;
  std::int32_t banned_first = 0;  // in banned
  std::int32_t num_banned = 0;
};

struct SampleRowsArgs {
  const std::int32_t* num_rows = nullptr;  // [1]: rows of logits
  std::int64_t max_rows = 0;               // of the launch
  const void* logits = nullptr;            // [rows, logit_stride] bf16; kept
  std::int64_t logit_stride = 0;           // elements, multiple of 8
  std::int64_t vocab = 0;
  const SampleRow* rows = nullptr;  // [rows]

  const std::int32_t* bias_tokens = nullptr;
  const float* biases = nullptr;
  const std::int32_t* banned = nullptr;
  // [·, history_stride], in and out: the token drawn is appended, so that the next step finds it.
  std::int32_t* histories = nullptr;
  std::int64_t history_stride = 0;

  void* scratch = nullptr;  // SampleScratchBytes; zeroed once, then left alone

  std::int32_t* sampled = nullptr;     // [rows], out: the token drawn, or given
  float* log_probability = nullptr;    // [rows], out: of that token, in the raw logits
  std::uint8_t* finite = nullptr;      // [rows], out: 0: some logit was not; the token is 0
  std::int64_t max_top = 0;            // at most 64
  std::int32_t* top_tokens = nullptr;  // [rows, max_top], out: by falling logit, ties to lower ids
  float* top_log_probabilities = nullptr;  // [rows, max_top], out
};

std::size_t SampleScratchBytes(std::int64_t max_rows, std::int64_t vocab);

void SampleRowsCuda(const SampleRowsArgs& args, CudaStream stream);

// The twin, by host pointers; scratch is not used.
void SampleRowsCpu(const SampleRowsArgs& args);

}  // namespace penstock
