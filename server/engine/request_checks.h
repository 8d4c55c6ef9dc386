// The bounds on requests, in one place. Every refusal is INVALID_ARGUMENT and names field, value
// and bound.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/engine/policy.h"
#include "server/engine/request.h"
#include "server/model/model.h"

namespace penstock {

// Which bounds apply: the server's, the model's, the tenant's.
struct RequestBounds {
  Limits limits;
  int vocab_size = 0;
  int priority_ceiling = 9;
};

absl::Status CheckRequestId(const std::string& request_id);
// Options of one answer, defaults filled in from `defaults` (generation_config.json).
absl::StatusOr<SamplingParams> CheckSampling(const SamplingOptions& sampling,
                                             const SamplingOptions& defaults,
                                             const RequestBounds& bounds);
// `eos`: the model's stop tokens. max_new_tokens is checked against limits.max_new_tokens and, with
// the prompt, limits.max_context; unset, it is what both leave.
absl::StatusOr<StoppingParams> CheckStopping(const StoppingOptions& stopping,
                                             const std::vector<TokenId>& eos,
                                             std::int64_t prompt_tokens,
                                             const RequestBounds& bounds);
absl::StatusOr<int> CheckChoices(const SamplingOptions& sampling, const RequestBounds& bounds);
absl::StatusOr<std::optional<int>> CheckLogprobs(const std::string& field,
                                                 std::optional<std::int64_t> value,
                                                 const RequestBounds& bounds);
absl::StatusOr<int> CheckPriority(std::optional<std::int64_t> priority,
                                  const RequestBounds& bounds);
absl::Status CheckUnit(const std::string& session_id, const std::string& user);
absl::Status CheckCacheSalt(const std::string& salt);
absl::Status CheckLatencyTarget(const std::string& field, std::optional<absl::Duration> target);
// Size and ids of a prompt before and after tokenization. `field`: "prompt".
absl::Status CheckPromptBytes(const Prompt& prompt, const RequestBounds& bounds);
absl::Status CheckPromptTokens(const std::vector<TokenId>& tokens, const RequestBounds& bounds);

}  // namespace penstock
