// The next token, drawn from one row of logits.
#pragma once

#include <cstdint>

namespace penstock {

// Lists may be empty (null with count 0); token ids are in [0, vocab).
struct SampleArgs {
  float* logits = nullptr;  // [vocab], finite; overwritten
  std::int64_t vocab = 0;

  const std::int32_t* bias_tokens = nullptr;  // [biases], added up where a token repeats
  const float* biases = nullptr;              // [biases]
  std::int64_t num_biases = 0;
  const std::int32_t* prompt = nullptr;
  std::int64_t num_prompt = 0;
  const std::int32_t* output = nullptr;
  std::int64_t num_output = 0;
  double repetition_penalty = 1;
  double frequency_penalty = 0;
  double presence_penalty = 0;
  const std::int32_t* banned = nullptr;  // tokens that may not be drawn
  std::int64_t num_banned = 0;
  double temperature = 1;  // 0: the largest logit, the lowest id among equals
  double min_p = 0;        // 0: off
  std::int64_t top_k = 0;  // 0: off
  double top_p = 1;        // 1: off

  std::uint64_t seed = 0;
  std::uint32_t choice = 0;
  std::uint32_t position = 0;  // of the draw: tokens of the answer before it
};

// Steps, in this order. 1. biases. 2. repetition penalty on every token of prompt or output:
// divides positive logits, multiplies others (Keskar et al., arXiv 1909.05858; as Hugging Face). 3.
// on output tokens, minus frequency · count + presence.
// 4. bans. 5. temperature. 6. min-p: probability at least min_p times the largest. 7. the top_k
// largest, ties to the lower id. 8. top-p: the fewest tokens in falling order that reach top_p of
// what is left, at least one. 9. Gumbel-max: the largest logit − ln E, E exponential from
// Philox4x32-10, key = seed, counter = (position, token, choice, 0), first word w: E = −ln(1 − (w +
// ½) / 2^32). A draw depends on nothing but the logits, the options and these numbers.
std::int32_t SampleCpu(const SampleArgs& args);

}  // namespace penstock
