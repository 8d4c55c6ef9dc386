// The flags by which generate, chat and trace shape a request, one for each field.
#pragma once

#include <CLI/App.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "penstock/v1/inference.pb.h"

namespace penstock::client {

// Unset stays unset on the wire, where it means the model's default. Ranges are the server's
// affair: its errors name the field and the bound.
struct RequestFlags {
  std::optional<double> temperature, top_p, min_p;
  std::optional<int> top_k, n, max_tokens, min_tokens, logprobs, priority;
  std::optional<std::uint64_t> seed;
  std::optional<double> repetition_penalty, presence_penalty, frequency_penalty;
  std::vector<std::string> logit_bias;  // "ID=BIAS"
  std::vector<std::string> stop;
  std::vector<int> stop_token_ids;
  bool ignore_eos = false;
  bool no_cache = false;
  std::string cache_salt, session, user, request_id, model;
};

// `flags` must outlive the parse. `with_choices`: also --n and --logprobs, which a chat doesn't
// have.
void AddRequestFlags(CLI::App& command, RequestFlags& flags, bool with_choices);

// Fills in all but prompt and router. `flags` has been parsed.
void Apply(const RequestFlags& flags, v1::GenerateRequest& request);

// An option for lists of names, "a, b,c", whose parts `names` gets; an empty one among others is
// refused.
CLI::Option* AddNames(CLI::App& command, const std::string& flag, std::vector<std::string>& names,
                      const std::string& description);

// "a,b,c" given once or several times.
CLI::Option* AddRouterFlag(CLI::App& command, std::vector<std::string>& routers);

// The words of the command line, else (none, or "-") all of standard input. Throws
// CLI::ValidationError where neither has any text, or standard input is a terminal.
std::string PromptText(const std::vector<std::string>& words, std::istream& in,
                       bool in_is_terminal);

}  // namespace penstock::client
