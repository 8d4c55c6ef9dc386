// What is asked of the model for one answer, and what comes back of it. A request with n choices is
// n sequences.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/scheduler/loaded_router.h"

namespace penstock {

using TokenId = std::int32_t;
using SequenceId = std::uint64_t;

// Applied in this order: logit bias, repetition, frequency and presence penalties, temperature,
// min-p, top-k, top-p.
struct SamplingParams {
  double temperature = 1;    // 0: greedy, the lowest id among equal logits
  double top_p = 1;          // (0, 1]; 1: off. 0 keeps just the most probable token
  int top_k = 0;             // 0: off
  double min_p = 0;          // [0, 1], relative to the most probable token
  std::uint64_t seed = 0;    // with `choice` the key of the draw
  std::uint32_t choice = 0;  // index among the request's n choices
  double repetition_penalty =
      1;  // over prompt and output, as Hugging Face: divides positive, multiplies negative logits
  double presence_penalty = 0;   // over the output
  double frequency_penalty = 0;  // over the output, times the count
  std::vector<std::pair<TokenId, float>> logit_bias;
};

struct StoppingParams {
  int max_new_tokens =
      1;  // 0: the prompt is computed (for its log-probabilities), nothing is sampled
  int min_new_tokens = 0;               // until then the stop tokens' logits are -inf
  std::vector<TokenId> stop_token_ids;  // with the model's EOS ids, unless the request ignores them
};

struct OutputParams {
  std::optional<int> logprobs;  // of sampled tokens: this many alternatives beside the token itself
  std::optional<int> prompt_logprobs;  // the same for every prompt token but the first; such a
                                       // prompt reads no cache
  bool router_trace =
      false;  // experts and weights of every computed row whose token is part of the answer
  bool prompt_trace = false;  // those of the prompt's rows too; such a prompt reads no cache
};

struct SequenceSpec {
  SequenceId id = 0;  // unique among live sequences
  std::string tenant;
  std::shared_ptr<const LoadedRouter> router;
  std::vector<TokenId> prompt;  // at least one token
  SamplingParams sampling;
  StoppingParams stopping;
  OutputParams output;
  int priority = 5;                                    // 0–9, higher first
  absl::Duration deadline = absl::InfiniteDuration();  // on Clock::Monotonic
  std::string cache_salt;
  bool bypass_cache = false;  // neither reads the prefix cache nor adds to it
  // Work of the server's own, which nobody waits for: it runs in what the others leave of a step,
  // loses its place to any of them, and its rows are left out of every count. `priority` means
  // nothing then; max_new_tokens is 0.
  bool background = false;
};

enum class FinishReason { kStop, kLength, kCancelled, kDeadline, kError };

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0;  // raw: fp32 log-softmax of the model's logits, before any sampling option
};

// A token with its log-probability and the most probable tokens beside it, in falling order.
struct ScoredToken {
  TokenLogprob token;
  std::vector<TokenLogprob> top;
};

// Experts and weights that one row's token was given.
struct RowTrace {
  std::int32_t position = 0;
  std::vector<std::uint8_t> experts;  // [sparse layers · k]
  std::vector<float> weights;         // [sparse layers · k]
};

// How a sequence's time and tokens were spent. Durations on Clock::Monotonic.
struct SequenceStats {
  int prompt_tokens = 0;
  int cached_prompt_tokens = 0;  // found in the prefix cache at first admission
  int output_tokens = 0;         // those given out in events: a matched stop token is not counted
  int preemptions = 0;
  // Points in time; infinite: not reached.
  absl::Duration enqueued = absl::InfiniteDuration();
  absl::Duration admitted = absl::InfiniteDuration();     // first planned into a step
  absl::Duration first_token = absl::InfiniteDuration();  // sampled and committed, a stop token too
  absl::Duration finished = absl::InfiniteDuration();
};

// What happened to a sequence in a step, in order. Exactly one event per accepted sequence has
// `finish` set: its last.
struct SequenceEvent {
  SequenceId id = 0;
  absl::Duration time;              // when the engine gave it out, on Clock::Monotonic
  std::vector<ScoredToken> tokens;  // newly sampled: none or one; never a matched stop token
  std::vector<ScoredToken>
      prompt_scores;  // newly computed, of consecutive prompt positions, first is position 1
  std::vector<RowTrace> traces;
  std::optional<FinishReason> finish;
  std::optional<TokenId>
      stop_token;       // which one matched, for kStop; absent when Cancel gave that reason
  absl::Status error;   // of the model, for kError; OK when Cancel gave that reason
  SequenceStats stats;  // complete once `finish` is set
};

}  // namespace penstock
