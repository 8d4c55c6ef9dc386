#include "server/model/reference/sampler.h"

#include <algorithm>

#include "kernels/logits.h"
#include "kernels/sample.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"

namespace penstock {
namespace {

absl::StatusOr<float*> Widened(Element element, const void* logits, std::int64_t vocab,
                               Scratch& scratch) {
  auto* widened = scratch.Get<float>(vocab);
  if (WidenCpu(element, logits, widened, vocab)) return widened;
  return MakeError(absl::StatusCode::kInternal,
                   "the model's output logits are not finite: its weights overflow in this dtype, "
                   "or are damaged",
                   {.reason = "NON_FINITE_LOGITS", .field = "", .retry_after = std::nullopt});
}

TokenId Draw(const PlannedSequence& planned, float* logits, std::int64_t vocab) {
  const SequenceSpec& spec = *planned.spec;
  const SamplingParams& sampling = spec.sampling;
  std::vector<std::int32_t> bias_tokens;
  std::vector<float> biases;
  for (const auto& [token, bias] : sampling.logit_bias) {
    bias_tokens.push_back(token);
    biases.push_back(bias);
  }
  static const std::vector<TokenId> kNone;
  const std::vector<TokenId>& output = planned.output == nullptr ? kNone : *planned.output;
  const std::vector<TokenId>& banned =
      planned.num_output < spec.stopping.min_new_tokens ? spec.stopping.stop_token_ids : kNone;
  return SampleCpu({.logits = logits,
                    .vocab = vocab,
                    .bias_tokens = bias_tokens.data(),
                    .biases = biases.data(),
                    .num_biases = static_cast<std::int64_t>(biases.size()),
                    .prompt = spec.prompt.data(),
                    .num_prompt = static_cast<std::int64_t>(spec.prompt.size()),
                    .output = output.data(),
                    .num_output = static_cast<std::int64_t>(output.size()),
                    .repetition_penalty = sampling.repetition_penalty,
                    .frequency_penalty = sampling.frequency_penalty,
                    .presence_penalty = sampling.presence_penalty,
                    .banned = banned.data(),
                    .num_banned = static_cast<std::int64_t>(banned.size()),
                    .temperature = sampling.temperature,
                    .min_p = sampling.min_p,
                    .top_k = sampling.top_k,
                    .top_p = sampling.top_p,
                    .seed = sampling.seed,
                    .choice = sampling.choice,
                    .position = static_cast<std::uint32_t>(planned.num_output)});
}

// logits: finite.
ScoredToken Score(const float* logits, std::int64_t vocab, TokenId token, int top) {
  const float total = LogSumExpCpu(logits, vocab);
  ScoredToken scored;
  scored.token = {token, logits[token] - total};
  std::vector<std::int32_t> ids(static_cast<std::size_t>(std::min<std::int64_t>(top, vocab)));
  TopIdsCpu(logits, vocab, static_cast<std::int64_t>(ids.size()), ids.data());
  for (const std::int32_t id : ids) scored.top.push_back({id, logits[id] - total});
  return scored;
}

}  // namespace

absl::StatusOr<ScoredToken> SampleToken(const PlannedSequence& planned, Element element,
                                        const void* logits, std::int64_t vocab, Scratch& scratch) {
  PENSTOCK_ASSIGN_OR_RETURN(float* widened, Widened(element, logits, vocab, scratch));
  const TokenId token = Draw(planned, widened, vocab);
  // The draw overwrote them, and log-probabilities are of the raw ones.
  return ScoreToken(token, planned.spec->output.logprobs.value_or(0), element, logits, vocab,
                    scratch);
}

absl::StatusOr<ScoredToken> ScoreToken(TokenId token, int top, Element element, const void* logits,
                                       std::int64_t vocab, Scratch& scratch) {
  PENSTOCK_ASSIGN_OR_RETURN(float* widened, Widened(element, logits, vocab, scratch));
  return Score(widened, vocab, token, top);
}

}  // namespace penstock
