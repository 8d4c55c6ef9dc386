// From a row of logits to a sampled or scored token.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "kernels/element.h"
#include "server/model/reference/host_buffer.h"
#include "server/scheduler/step_plan.h"

namespace penstock {

// Draws the next token of `planned` from `logits`, [vocab] in `element`, as SamplingParams says.
// Deterministic: the logits, the sequence's own options and tokens, and its seed decide. INTERNAL
// when a logit is not finite.
absl::StatusOr<ScoredToken> SampleToken(const PlannedSequence& planned, Element element,
                                        const void* logits, std::int64_t vocab, Scratch& scratch);

// The raw log-probability of `token` in `logits`, [vocab] in `element`, and the `top` most probable
// tokens. INTERNAL when a logit is not finite.
absl::StatusOr<ScoredToken> ScoreToken(TokenId token, int top, Element element, const void* logits,
                                       std::int64_t vocab, Scratch& scratch);

}  // namespace penstock
