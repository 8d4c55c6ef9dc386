#include "clients/cpp/cli/request_flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <istream>
#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace penstock::client {
namespace {

struct TokenBias {
  int token_id = 0;
  float bias = 0;
};

std::optional<TokenBias> ParseBias(const std::string& text) {
  const std::size_t equals = text.find('=');
  TokenBias bias;
  if (equals == std::string::npos || !absl::SimpleAtoi(text.substr(0, equals), &bias.token_id) ||
      !absl::SimpleAtof(text.substr(equals + 1), &bias.bias)) {
    return std::nullopt;
  }
  return bias;
}

std::string CheckBias(const std::string& text) {
  return ParseBias(text) ? "" : "got " + text + ", want TOKEN_ID=BIAS";
}

// Of "a, b": a and b; of an empty text none.
std::vector<std::string> Names(const std::string& list) {
  std::vector<std::string> names;
  if (list.empty()) return names;
  for (const absl::string_view part : absl::StrSplit(list, ','))
    names.emplace_back(absl::StripAsciiWhitespace(part));
  return names;
}

}  // namespace

void AddRequestFlags(CLI::App& command, RequestFlags& flags, bool with_choices) {
  const std::string sampling = "Sampling (unset: the model's default)";
  command.add_option("--temperature", flags.temperature, "0 is greedy")->group(sampling);
  command.add_option("--top-p", flags.top_p, "Nucleus of this probability")->group(sampling);
  command.add_option("--top-k", flags.top_k, "Most probable tokens kept; 0: all")->group(sampling);
  command.add_option("--min-p", flags.min_p, "Floor, relative to the most probable token")
      ->group(sampling);
  command.add_option("--seed", flags.seed, "The same seed gives the same answer")->group(sampling);
  command.add_option("--repetition-penalty", flags.repetition_penalty, "1: off")->group(sampling);
  command.add_option("--presence-penalty", flags.presence_penalty, "0: off")->group(sampling);
  command.add_option("--frequency-penalty", flags.frequency_penalty, "0: off")->group(sampling);
  command.add_option("--logit-bias", flags.logit_bias, "Added to a token's logit; may repeat")
      ->type_name("ID=BIAS")
      ->check(CheckBias)
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all()
      ->group(sampling);
  if (with_choices) {
    command.add_option("-n,--n", flags.n, "Answers to the prompt")->group(sampling);
    command
        .add_option("--logprobs", flags.logprobs,
                    "Log-probabilities of each token and this many alternatives (shown by --json)")
        ->group(sampling);
  }

  const std::string stopping = "Stopping";
  command.add_option("--max-tokens", flags.max_tokens, "Tokens at most")->group(stopping);
  command.add_option("--min-tokens", flags.min_tokens, "Tokens at least")->group(stopping);
  command.add_option("--stop", flags.stop, "The answer ends before this text; may repeat")
      ->type_name("TEXT")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all()
      ->group(stopping);
  command.add_option("--stop-token-id", flags.stop_token_ids, "May repeat")
      ->type_name("ID")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all()
      ->group(stopping);
  command.add_flag("--ignore-eos", flags.ignore_eos, "The model's own stop tokens don't stop")
      ->group(stopping);

  const std::string request = "Request";
  command.add_option("--priority", flags.priority, "0 to 9, higher first")->group(request);
  command.add_option("--session", flags.session, "Session, for assignments that stick")
      ->group(request);
  command.add_option("--user", flags.user, "User, for assignments that stick")->group(request);
  command.add_option("--request-id", flags.request_id, "Echoed in replies and logs")
      ->group(request);
  command.add_option("--model", flags.model, "Refused unless it is the served model's name")
      ->group(request);
  command.add_flag("--no-cache", flags.no_cache, "Neither read nor fill the prefix cache")
      ->group(request);
  command
      .add_option("--cache-salt", flags.cache_salt, "Share the prefix cache with this salt only")
      ->group(request);
}

void Apply(const RequestFlags& flags, v1::GenerateRequest& request) {
  request.set_request_id(flags.request_id);
  request.set_model(flags.model);
  if (!flags.session.empty()) request.mutable_unit()->set_session_id(flags.session);
  if (!flags.user.empty()) request.mutable_unit()->set_user(flags.user);
  if (flags.priority) request.set_priority(*flags.priority);

  v1::SamplingOptions& sampling = *request.mutable_sampling();
  if (flags.temperature) sampling.set_temperature(*flags.temperature);
  if (flags.top_p) sampling.set_top_p(*flags.top_p);
  if (flags.top_k) sampling.set_top_k(*flags.top_k);
  if (flags.min_p) sampling.set_min_p(*flags.min_p);
  if (flags.seed) sampling.set_seed(*flags.seed);
  if (flags.repetition_penalty) sampling.set_repetition_penalty(*flags.repetition_penalty);
  if (flags.presence_penalty) sampling.set_presence_penalty(*flags.presence_penalty);
  if (flags.frequency_penalty) sampling.set_frequency_penalty(*flags.frequency_penalty);
  if (flags.n) sampling.set_n(*flags.n);
  for (const std::string& text : flags.logit_bias) {
    if (const auto bias = ParseBias(text)) {
      (*sampling.mutable_logit_bias())[bias->token_id] = bias->bias;
    }
  }

  v1::StoppingOptions& stopping = *request.mutable_stopping();
  if (flags.max_tokens) stopping.set_max_new_tokens(*flags.max_tokens);
  if (flags.min_tokens) stopping.set_min_new_tokens(*flags.min_tokens);
  for (const std::string& stop : flags.stop) stopping.add_stop(stop);
  for (const int id : flags.stop_token_ids) stopping.add_stop_token_ids(id);
  stopping.set_ignore_eos(flags.ignore_eos);

  if (flags.logprobs) request.mutable_response()->set_logprobs(*flags.logprobs);
  request.mutable_cache()->set_bypass(flags.no_cache);
  request.mutable_cache()->set_salt(flags.cache_salt);
}

CLI::Option* AddNames(CLI::App& command, const std::string& flag, std::vector<std::string>& names,
                      const std::string& description) {
  const auto take = [&names](const std::vector<std::string>& lists) {
    for (const std::string& list : lists) {
      for (std::string& name : Names(list)) names.push_back(std::move(name));
    }
  };
  const auto check = [](const std::string& list) {
    const std::vector<std::string> parts = Names(list);
    return std::count(parts.begin(), parts.end(), "") == 0
               ? ""
               : "got '" + list + "', want names such as a,b,c";
  };
  return command.add_option_function<std::vector<std::string>>(flag, take, description)
      ->check(CLI::Validator(check, ""));
}

CLI::Option* AddRouterFlag(CLI::App& command, std::vector<std::string>& routers) {
  return AddNames(command, "-r,--router", routers,
                  "Router, or several: a,b,c (unset: the server assigns)")
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
}

std::string PromptText(const std::vector<std::string>& words, std::istream& in,
                       bool in_is_terminal) {
  const bool from_stream = words.empty() || (words.size() == 1 && words[0] == "-");
  if (from_stream && in_is_terminal) {
    throw CLI::ValidationError("PROMPT",
                               "got nothing, want a text as an argument or on standard input");
  }
  std::string text =
      from_stream ? std::string(std::istreambuf_iterator<char>(in), {}) : absl::StrJoin(words, " ");
  // The line end of `echo` and of editors is no part of the prompt.
  if (from_stream && !text.empty() && text.back() == '\n') text.pop_back();
  if (text.empty())
    throw CLI::ValidationError("PROMPT", "got an empty text, want at least a character");
  return text;
}

}  // namespace penstock::client
