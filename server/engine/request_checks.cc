#include "server/engine/request_checks.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/model/tokenizer/utf8.h"

namespace penstock {
namespace {

constexpr std::size_t kMaxRequestIdBytes = 128;
constexpr std::size_t kMaxUnitBytes = 256;
constexpr std::size_t kMaxSaltBytes = 128;
constexpr std::size_t kMaxMessages = 4096;

// A range as it stands in messages: "[0, 2]" or "(0, 10]".
struct Range {
  double low, high;
  bool open_low = false;

  // NaN is in no range.
  bool Contains(double value) const {
    return value <= high && (open_low ? value > low : value >= low);
  }
  std::string Text() const {
    return absl::StrCat("a number in ", open_low ? "(" : "[", low, ", ", high, "]");
  }
};

// The request's value if it has one, else the default's, else `neutral`.
absl::StatusOr<double> CheckNumber(const char* field, std::optional<double> value,
                                   std::optional<double> fallback, double neutral, Range range) {
  const double chosen = value ? *value : fallback.value_or(neutral);
  if (!range.Contains(chosen)) return InvalidField(field, absl::StrCat(chosen), range.Text());
  return chosen;
}

absl::Status CheckInteger(const std::string& field, std::int64_t value, std::int64_t low,
                          std::int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(value),
                      absl::StrCat("an integer in [", low, ", ", high, "]"));
}

absl::Status CheckCount(const std::string& field, std::size_t count, std::int64_t bound,
                        const char* noun) {
  if (static_cast<std::int64_t>(count) <= bound) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(count, " ", noun), absl::StrCat("at most ", bound));
}

absl::Status CheckBytes(const std::string& field, std::size_t bytes, std::size_t bound) {
  if (bytes <= bound) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(bytes, " bytes"), absl::StrCat("at most ", bound));
}

absl::Status CheckTokenId(const std::string& field, std::int64_t id, int vocab_size) {
  if (id >= 0 && id < vocab_size) return absl::OkStatus();
  return InvalidField(field, absl::StrCat(id),
                      absl::StrCat("a token id in [0, ", vocab_size - 1, "]"));
}

absl::Status CheckUtf8(const std::string& field, const std::string& text) {
  const std::optional<std::size_t> bad = FindInvalidUtf8(text);
  if (!bad) return absl::OkStatus();
  return InvalidField(field, absl::StrCat("an invalid byte at offset ", *bad), "valid UTF-8");
}

}  // namespace

absl::Status CheckRequestId(const std::string& request_id) {
  PENSTOCK_RETURN_IF_ERROR(CheckBytes("request_id", request_id.size(), kMaxRequestIdBytes));
  for (std::size_t i = 0; i < request_id.size(); ++i) {
    const unsigned char byte = request_id[i];
    if (byte < 0x20 || byte > 0x7e) {
      return InvalidField("request_id", absl::StrCat("byte 0x", absl::Hex(byte), " at offset ", i),
                          "printable ASCII characters");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<SamplingParams> CheckSampling(const SamplingOptions& sampling,
                                             const SamplingOptions& defaults,
                                             const RequestBounds& bounds) {
  SamplingParams params;
  PENSTOCK_ASSIGN_OR_RETURN(
      params.temperature,
      CheckNumber("sampling.temperature", sampling.temperature, defaults.temperature, 1, {0, 2}));
  PENSTOCK_ASSIGN_OR_RETURN(
      params.top_p, CheckNumber("sampling.top_p", sampling.top_p, defaults.top_p, 1, {0, 1}));
  PENSTOCK_ASSIGN_OR_RETURN(
      params.min_p, CheckNumber("sampling.min_p", sampling.min_p, defaults.min_p, 0, {0, 1}));
  PENSTOCK_ASSIGN_OR_RETURN(params.repetition_penalty,
                            CheckNumber("sampling.repetition_penalty", sampling.repetition_penalty,
                                        defaults.repetition_penalty, 1, {0, 10, true}));
  PENSTOCK_ASSIGN_OR_RETURN(params.presence_penalty,
                            CheckNumber("sampling.presence_penalty", sampling.presence_penalty,
                                        defaults.presence_penalty, 0, {-2, 2}));
  PENSTOCK_ASSIGN_OR_RETURN(params.frequency_penalty,
                            CheckNumber("sampling.frequency_penalty", sampling.frequency_penalty,
                                        defaults.frequency_penalty, 0, {-2, 2}));
  const std::int64_t top_k = sampling.top_k ? *sampling.top_k : defaults.top_k.value_or(0);
  PENSTOCK_RETURN_IF_ERROR(CheckInteger("sampling.top_k", top_k, 0, bounds.vocab_size));
  params.top_k = static_cast<int>(top_k);
  PENSTOCK_RETURN_IF_ERROR(CheckCount("sampling.logit_bias", sampling.logit_bias.size(),
                                      bounds.limits.max_logit_bias, "entries"));
  const Range bias_range{-100, 100};
  for (const auto& [id, bias] : sampling.logit_bias) {
    PENSTOCK_RETURN_IF_ERROR(CheckTokenId("sampling.logit_bias", id, bounds.vocab_size));
    if (!bias_range.Contains(bias)) {
      return InvalidField(absl::StrCat("sampling.logit_bias[", id, "]"), absl::StrCat(bias),
                          bias_range.Text());
    }
    params.logit_bias.emplace_back(static_cast<TokenId>(id), bias);
  }
  return params;
}

absl::StatusOr<StoppingParams> CheckStopping(const StoppingOptions& stopping,
                                             const std::vector<TokenId>& eos,
                                             std::int64_t prompt_tokens,
                                             const RequestBounds& bounds) {
  const Limits& limits = bounds.limits;
  PENSTOCK_RETURN_IF_ERROR(
      CheckCount("stopping.stop", stopping.stop.size(), limits.max_stop_strings, "stop strings"));
  for (std::size_t i = 0; i < stopping.stop.size(); ++i) {
    const std::string field = absl::StrCat("stopping.stop[", i, "]");
    if (stopping.stop[i].empty()) return InvalidField(field, "an empty string", "at least 1 byte");
    PENSTOCK_RETURN_IF_ERROR(CheckBytes(field, stopping.stop[i].size(),
                                        static_cast<std::size_t>(limits.max_stop_bytes)));
    PENSTOCK_RETURN_IF_ERROR(CheckUtf8(field, stopping.stop[i]));
  }
  PENSTOCK_RETURN_IF_ERROR(CheckCount("stopping.stop_token_ids", stopping.stop_token_ids.size(),
                                      limits.max_stop_token_ids, "stop token ids"));
  StoppingParams params;
  if (!stopping.ignore_eos) params.stop_token_ids = eos;
  for (std::size_t i = 0; i < stopping.stop_token_ids.size(); ++i) {
    PENSTOCK_RETURN_IF_ERROR(CheckTokenId(absl::StrCat("stopping.stop_token_ids[", i, "]"),
                                          stopping.stop_token_ids[i], bounds.vocab_size));
    params.stop_token_ids.push_back(static_cast<TokenId>(stopping.stop_token_ids[i]));
  }
  const std::int64_t room = limits.max_context - prompt_tokens;
  if (room < 1) {
    return InvalidField(
        "prompt", absl::StrCat(prompt_tokens, " tokens"),
        absl::StrCat("at most ", limits.max_context - 1, ", so that the context of ",
                     limits.max_context, " has room for an answer"));
  }
  const std::int64_t most = std::min(room, limits.max_new_tokens);
  if (stopping.max_new_tokens) {
    PENSTOCK_RETURN_IF_ERROR(CheckInteger("stopping.max_new_tokens", *stopping.max_new_tokens, 1,
                                          limits.max_new_tokens));
    if (*stopping.max_new_tokens > room) {
      return InvalidField("stopping.max_new_tokens", absl::StrCat(*stopping.max_new_tokens),
                          absl::StrCat("at most ", room, ": the prompt has ", prompt_tokens,
                                       " tokens, engine.max_context is ", limits.max_context));
    }
  }
  params.max_new_tokens = static_cast<int>(stopping.max_new_tokens.value_or(most));
  const std::int64_t least = stopping.min_new_tokens.value_or(0);
  PENSTOCK_RETURN_IF_ERROR(
      CheckInteger("stopping.min_new_tokens", least, 0, params.max_new_tokens));
  params.min_new_tokens = static_cast<int>(least);
  return params;
}

absl::StatusOr<int> CheckChoices(const SamplingOptions& sampling, const RequestBounds& bounds) {
  const std::int64_t n = sampling.n.value_or(1);
  PENSTOCK_RETURN_IF_ERROR(CheckInteger("sampling.n", n, 1, bounds.limits.max_choices));
  return static_cast<int>(n);
}

absl::StatusOr<std::optional<int>> CheckLogprobs(const std::string& field,
                                                 std::optional<std::int64_t> value,
                                                 const RequestBounds& bounds) {
  if (!value) return std::optional<int>();
  PENSTOCK_RETURN_IF_ERROR(CheckInteger(
      field, *value, 0, std::min<std::int64_t>(bounds.limits.max_logprobs, bounds.vocab_size)));
  return std::optional<int>(static_cast<int>(*value));
}

absl::StatusOr<int> CheckPriority(std::optional<std::int64_t> priority,
                                  const RequestBounds& bounds) {
  const std::int64_t value = priority.value_or(std::min(5, bounds.priority_ceiling));
  PENSTOCK_RETURN_IF_ERROR(CheckInteger("priority", value, 0, 9));
  if (value > bounds.priority_ceiling) {
    return InvalidField(
        "priority", absl::StrCat(value),
        absl::StrCat("at most ", bounds.priority_ceiling, ", the tenant's priority_ceiling"));
  }
  return static_cast<int>(value);
}

absl::Status CheckUnit(const std::string& session_id, const std::string& user) {
  PENSTOCK_RETURN_IF_ERROR(CheckBytes("unit.session_id", session_id.size(), kMaxUnitBytes));
  return CheckBytes("unit.user", user.size(), kMaxUnitBytes);
}

absl::Status CheckCacheSalt(const std::string& salt) {
  return CheckBytes("cache.salt", salt.size(), kMaxSaltBytes);
}

absl::Status CheckLatencyTarget(const std::string& field, std::optional<absl::Duration> target) {
  if (!target || (*target > absl::ZeroDuration() && *target < absl::Hours(24)))
    return absl::OkStatus();
  return InvalidField(field, absl::FormatDuration(*target), "a duration over 0 and under 24h");
}

absl::Status CheckPromptBytes(const Prompt& prompt, const RequestBounds& bounds) {
  const std::size_t bound = static_cast<std::size_t>(bounds.limits.max_prompt_bytes);
  if (const auto* text = std::get_if<std::string>(&prompt)) {
    PENSTOCK_RETURN_IF_ERROR(CheckBytes("text", text->size(), bound));
    return CheckUtf8("text", *text);
  }
  if (const auto* messages = std::get_if<std::vector<ChatMessage>>(&prompt)) {
    if (messages->empty()) return InvalidField("chat.messages", "no message", "at least 1");
    PENSTOCK_RETURN_IF_ERROR(
        CheckCount("chat.messages", messages->size(), kMaxMessages, "messages"));
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < messages->size(); ++i) {
      const ChatMessage& message = (*messages)[i];
      const std::string field = absl::StrCat("chat.messages[", i, "]");
      if (message.role != "system" && message.role != "user" && message.role != "assistant") {
        return InvalidField(absl::StrCat(field, ".role"), absl::StrCat("\"", message.role, "\""),
                            "\"system\", \"user\" or \"assistant\"");
      }
      PENSTOCK_RETURN_IF_ERROR(CheckUtf8(absl::StrCat(field, ".content"), message.content));
      bytes += message.content.size();
    }
    return CheckBytes("chat.messages", bytes, bound);
  }
  if (std::holds_alternative<std::monostate>(prompt)) {
    return InvalidField("prompt", "nothing", "text, token_ids or chat");
  }
  return absl::OkStatus();
}

absl::Status CheckPromptTokens(const std::vector<TokenId>& tokens, const RequestBounds& bounds) {
  if (tokens.empty()) return InvalidField("prompt", "no tokens", "at least 1");
  PENSTOCK_RETURN_IF_ERROR(
      CheckCount("prompt", tokens.size(), bounds.limits.max_prompt_tokens, "tokens"));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    PENSTOCK_RETURN_IF_ERROR(
        CheckTokenId(absl::StrCat("token_ids.ids[", i, "]"), tokens[i], bounds.vocab_size));
  }
  return absl::OkStatus();
}

}  // namespace penstock
