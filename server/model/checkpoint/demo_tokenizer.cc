#include "server/model/checkpoint/demo_tokenizer.h"

#include <cstdint>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "routers/package/quote.h"
#include "server/base/status_macros.h"

namespace penstock {
namespace {

using Json = nlohmann::ordered_json;

// tokenizer.ggml.token_type (llama.cpp, llama_token_type).
constexpr std::int64_t kNormal = 1, kControl = 3, kUserDefined = 4;

absl::Status Refuse(const GgufFile& gguf, const char* key, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(gguf.path(), ": ", key, ": ", what));
}

absl::Status CheckKind(const GgufFile& gguf) {
  constexpr std::pair<const char*, const char*> kWanted[] = {{"tokenizer.ggml.model", "gpt2"},
                                                             {"tokenizer.ggml.pre", "smollm"}};
  for (const auto& [key, want] : kWanted) {
    PENSTOCK_ASSIGN_OR_RETURN(const std::string_view got, gguf.String(key));
    if (got != want) {
      return Refuse(
          gguf, key,
          absl::StrCat("got ", Quote(got), ", want \"", want, "\": others are not supported"));
    }
  }
  return absl::OkStatus();
}

// Tokens that a text is searched for before it is split.
absl::StatusOr<Json> AddedTokens(const GgufFile& gguf,
                                 const std::vector<std::string_view>& tokens) {
  constexpr char kKey[] = "tokenizer.ggml.token_type";
  PENSTOCK_ASSIGN_OR_RETURN(const std::vector<std::int64_t> types, gguf.Integers(kKey));
  if (types.size() != tokens.size()) {
    return Refuse(gguf, kKey, absl::StrCat("got ", types.size(), " of them, want ", tokens.size()));
  }
  Json added = Json::array();
  for (std::size_t id = 0; id < types.size(); ++id) {
    if (types[id] == kNormal) continue;
    if (types[id] != kControl && types[id] != kUserDefined) {
      return Refuse(gguf, kKey,
                    absl::StrCat("got ", types[id], " for token ", id,
                                 ", want 1 (normal), 3 (control) or 4 (user-defined)"));
    }
    added.push_back({{"id", id},
                     {"content", std::string(tokens[id])},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", types[id] == kControl}});
  }
  return added;
}

absl::StatusOr<Json> Merges(const GgufFile& gguf, const std::vector<std::string_view>& tokens) {
  constexpr char kKey[] = "tokenizer.ggml.merges";
  PENSTOCK_ASSIGN_OR_RETURN(const std::vector<std::string_view> merges, gguf.Strings(kKey));
  const std::unordered_set<std::string_view> known(tokens.begin(), tokens.end());
  Json pairs = Json::array();
  for (std::size_t i = 0; i < merges.size(); ++i) {
    // In the byte-level alphabet no token holds a space.
    const std::size_t space = merges[i].find(' ');
    const bool pair =
        space != std::string_view::npos && merges[i].find(' ', space + 1) == std::string_view::npos;
    const std::string_view left = merges[i].substr(0, space);
    const std::string_view right = pair ? merges[i].substr(space + 1) : std::string_view();
    if (!pair || !known.contains(left) || !known.contains(right) ||
        !known.contains(absl::StrCat(std::string(left), std::string(right)))) {
      return Refuse(gguf, kKey,
                    absl::StrCat("got ", Quote(merges[i]), " at ", i,
                                 ", want two tokens, and their join a token"));
    }
    pairs.push_back({std::string(left), std::string(right)});
  }
  return pairs;
}

Json ByteLevel(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

absl::StatusOr<std::string> Dump(const GgufFile& gguf, const Json& json) {
  try {
    return json.dump(2) + "\n";
  } catch (const Json::type_error&) {
    return Refuse(gguf, "tokenizer", "got text that is not UTF-8, want UTF-8");
  }
}

}  // namespace

absl::StatusOr<DemoTokenizer> MakeDemoTokenizer(const GgufFile& gguf, const ModelConfig& model) {
  PENSTOCK_RETURN_IF_ERROR(CheckKind(gguf));
  constexpr char kTokens[] = "tokenizer.ggml.tokens";
  PENSTOCK_ASSIGN_OR_RETURN(const std::vector<std::string_view> tokens, gguf.Strings(kTokens));
  if (static_cast<std::int64_t>(tokens.size()) != model.vocab_size) {
    return Refuse(gguf, kTokens,
                  absl::StrCat("got ", tokens.size(), " of them, want ", model.vocab_size));
  }
  Json vocabulary = Json::object();
  std::unordered_set<std::string_view> seen;
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    if (!seen.insert(tokens[id]).second) {
      return Refuse(gguf, kTokens, absl::StrCat("got ", Quote(tokens[id]), " twice"));
    }
    // Past the class's own lookup, which would make this quadratic.
    static_cast<Json::object_t::Container&>(vocabulary.get_ref<Json::object_t&>())
        .emplace_back(std::string(tokens[id]), id);
  }
  PENSTOCK_ASSIGN_OR_RETURN(Json added, AddedTokens(gguf, tokens));
  PENSTOCK_ASSIGN_OR_RETURN(Json merges, Merges(gguf, tokens));
  PENSTOCK_ASSIGN_OR_RETURN(const std::string_view chat_template,
                            gguf.String("tokenizer.chat_template"));
  const std::int64_t last = model.vocab_size - 1;
  PENSTOCK_ASSIGN_OR_RETURN(const auto unknown,
                            gguf.Integer("tokenizer.ggml.unknown_token_id", 0, last));
  PENSTOCK_ASSIGN_OR_RETURN(const auto padding,
                            gguf.Integer("tokenizer.ggml.padding_token_id", 0, last));
  const std::int64_t bos = *model.bos_token_id, eos = model.eos_token_ids.front();

  const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
  const Json tokenizer = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", std::move(added)},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "Sequence"}, {"pretokenizers", Json::array({digits, ByteLevel(true)})}}},
      {"post_processor", nullptr},
      {"decoder", ByteLevel(true)},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"ignore_merges", false},
        {"vocab", std::move(vocabulary)},
        {"merges", std::move(merges)}}}};
  const Json tokenizer_config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                 {"add_prefix_space", false},
                                 {"bos_token", std::string(tokens[bos])},
                                 {"eos_token", std::string(tokens[eos])},
                                 {"pad_token", std::string(tokens[padding])},
                                 {"unk_token", std::string(tokens[unknown])},
                                 {"clean_up_tokenization_spaces", false},
                                 {"model_max_length", model.max_position_embeddings},
                                 {"chat_template", std::string(chat_template)}};
  const Json generation_config = {
      {"bos_token_id", bos}, {"eos_token_id", eos}, {"pad_token_id", padding}};
  DemoTokenizer files;
  PENSTOCK_ASSIGN_OR_RETURN(files.tokenizer, Dump(gguf, tokenizer));
  PENSTOCK_ASSIGN_OR_RETURN(files.tokenizer_config, Dump(gguf, tokenizer_config));
  PENSTOCK_ASSIGN_OR_RETURN(files.generation_config, Dump(gguf, generation_config));
  return files;
}

}  // namespace penstock
