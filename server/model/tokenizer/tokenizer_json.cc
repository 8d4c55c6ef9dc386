#include "server/model/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/base/status_macros.h"
#include "server/model/tokenizer/byte_alphabet.h"

namespace penstock {
namespace {

constexpr int64_t kIdBound =
    1 << 22;  // no vocabulary comes near it; tables are sized by the highest id
constexpr size_t kMaxQuotedBytes = 80;
constexpr uintmax_t kMaxFileBytes = 256 << 20;

std::string Quote(const nlohmann::json& value) {
  // Long values are cut, perhaps within a character: the dump replaces what that leaves.
  std::string text = value.is_structured()
                         ? (value.is_array() ? "an array" : "an object")
                         : value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (text.size() > kMaxQuotedBytes) text = text.substr(0, kMaxQuotedBytes) + "…";
  return text;
}

const nlohmann::json& At(const nlohmann::json& object, const char* key) {
  static const nlohmann::json absent = nullptr;
  const auto found = object.find(key);
  return found == object.end() ? absent : *found;
}

}  // namespace

absl::Status TokenizerJson::Refuse(const std::string& key, const std::string& got,
                                   const std::string& want) const {
  return absl::InvalidArgumentError(absl::StrCat(name_, ": ", key, ": got ", got, ", want ", want));
}

absl::Status TokenizerJson::Refuse(const std::string& key, const Json& got,
                                   const std::string& want) const {
  return Refuse(key, Quote(got), want);
}

absl::Status TokenizerJson::CheckKeys(const Json& object, const std::string& key,
                                      std::initializer_list<std::string_view> known) const {
  if (!object.is_object()) return Refuse(key, object, "an object");
  for (const auto& [name, value] : object.items()) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return Refuse(key.empty() ? name : absl::StrCat(key, ".", name), value, "no such key");
    }
  }
  return absl::OkStatus();
}

absl::Status TokenizerJson::CheckType(const Json& object, const std::string& key,
                                      std::string_view type) const {
  if (!object.is_object()) return Refuse(key, object, "an object");
  const Json& got = At(object, "type");
  if (got != Json(type)) return Refuse(key + ".type", got, Quote(Json(type)));
  return absl::OkStatus();
}

absl::StatusOr<bool> TokenizerJson::Flag(const Json& object, const std::string& key,
                                         const char* name, bool absent) const {
  const auto found = object.find(name);
  if (found == object.end()) return absent;
  if (!found->is_boolean()) return Refuse(absl::StrCat(key, ".", name), *found, "true or false");
  return found->get<bool>();
}

absl::Status TokenizerJson::CheckId(const Json& id, const std::string& key) const {
  if (!id.is_number_integer() || id < 0 || id >= kIdBound) {
    return Refuse(key, id, absl::StrCat("an id from 0 to ", kIdBound - 1));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> TokenizerJson::Read(std::string_view json) {
  Json root;
  try {
    root = Json::parse(json.begin(), json.end());
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(name_, ": not JSON: ", error.what()));
  }
  PENSTOCK_RETURN_IF_ERROR(ReadRoot(root));
  StoreTokens();
  return std::shared_ptr<const Tokenizer>(std::move(tokenizer_));
}

absl::Status TokenizerJson::ReadRoot(const Json& root) {
  if (!root.is_object()) return Refuse("the file", root, "an object");
  PENSTOCK_RETURN_IF_ERROR(
      CheckKeys(root, "",
                {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
                 "post_processor", "decoder", "model"}));
  if (root.contains("version") && root["version"] != "1.0")
    return Refuse("version", root["version"], "\"1.0\"");
  for (const char* key : {"truncation", "padding"}) {
    if (!At(root, key).is_null())
      return Refuse(key, root[key], "null: a server cuts and pads nothing");
  }
  PENSTOCK_RETURN_IF_ERROR(ReadNormalizer(At(root, "normalizer")));
  PENSTOCK_RETURN_IF_ERROR(ReadPreTokenizer(At(root, "pre_tokenizer")));
  if (!At(root, "post_processor").is_null()) {
    PENSTOCK_RETURN_IF_ERROR(CheckType(root["post_processor"], "post_processor", "ByteLevel"));
  }
  PENSTOCK_RETURN_IF_ERROR(CheckType(At(root, "decoder"), "decoder", "ByteLevel"));
  PENSTOCK_RETURN_IF_ERROR(ReadModel(At(root, "model")));
  return ReadAddedTokens(At(root, "added_tokens"));
}

absl::Status TokenizerJson::ReadNormalizer(const Json& normalizer) {
  if (normalizer.is_null()) return absl::OkStatus();
  PENSTOCK_RETURN_IF_ERROR(CheckType(normalizer, "normalizer", "NFC"));
  tokenizer_->normalizes_ = true;
  return CheckKeys(normalizer, "normalizer", {"type"});
}

absl::Status TokenizerJson::ReadPreTokenizer(const Json& pre_tokenizer) {
  const std::string key = "pre_tokenizer";
  if (!pre_tokenizer.is_object()) return Refuse(key, pre_tokenizer, "an object");
  if (At(pre_tokenizer, "type") != "Sequence")
    return ReadPreTokenizerStep(pre_tokenizer, key, true);
  PENSTOCK_RETURN_IF_ERROR(CheckKeys(pre_tokenizer, key, {"type", "pretokenizers"}));
  const Json& steps = At(pre_tokenizer, "pretokenizers");
  if (!steps.is_array() || steps.empty())
    return Refuse(key + ".pretokenizers", steps, "a list that ends with ByteLevel");
  for (size_t i = 0; i < steps.size(); ++i) {
    PENSTOCK_RETURN_IF_ERROR(ReadPreTokenizerStep(
        steps[i], absl::StrCat(key, ".pretokenizers[", i, "]"), i + 1 == steps.size()));
  }
  return absl::OkStatus();
}

absl::Status TokenizerJson::ReadPreTokenizerStep(const Json& step, const std::string& key,
                                                 bool is_last) {
  if (!step.is_object()) return Refuse(key, step, "an object");
  const Json& type = At(step, "type");
  if (is_last) {
    PENSTOCK_RETURN_IF_ERROR(CheckType(step, key, "ByteLevel"));
    PENSTOCK_RETURN_IF_ERROR(
        CheckKeys(step, key, {"type", "add_prefix_space", "trim_offsets", "use_regex"}));
    // Absent flags are as in Hugging Face tokenizers.
    PENSTOCK_ASSIGN_OR_RETURN(const bool prefix, Flag(step, key, "add_prefix_space", true));
    PENSTOCK_ASSIGN_OR_RETURN(const bool regex, Flag(step, key, "use_regex", true));
    return tokenizer_->pre_tokenizer_.AddByteLevel(prefix, regex);
  }
  if (type == "Split") return ReadSplit(step, key);
  if (type != "Digits")
    return Refuse(key + ".type", type, "\"Split\" or \"Digits\", and \"ByteLevel\" at the end");
  PENSTOCK_RETURN_IF_ERROR(CheckKeys(step, key, {"type", "individual_digits"}));
  PENSTOCK_ASSIGN_OR_RETURN(const bool individual, Flag(step, key, "individual_digits", false));
  return tokenizer_->pre_tokenizer_.AddDigits(individual);
}

absl::Status TokenizerJson::ReadSplit(const Json& split, const std::string& key) {
  PENSTOCK_RETURN_IF_ERROR(CheckKeys(split, key, {"type", "pattern", "behavior", "invert"}));
  if (At(split, "behavior") != "Isolated")
    return Refuse(key + ".behavior", At(split, "behavior"), "\"Isolated\"");
  PENSTOCK_ASSIGN_OR_RETURN(const bool invert, Flag(split, key, "invert", false));
  if (invert) return Refuse(key + ".invert", split["invert"], "false");
  const Json& pattern = At(split, "pattern");
  PENSTOCK_RETURN_IF_ERROR(CheckKeys(pattern, key + ".pattern", {"Regex"}));
  const Json& regex = At(pattern, "Regex");
  if (!regex.is_string()) return Refuse(key + ".pattern.Regex", regex, "a regular expression");
  const absl::Status added =
      tokenizer_->pre_tokenizer_.AddSplit(regex.get_ref<const std::string&>());
  if (!added.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(name_, ": ", key, ".pattern.Regex: ", added.message()));
  }
  return absl::OkStatus();
}

void TokenizerJson::StoreTokens() {
  tokenizer_->offsets_.reserve(spelling_.size() + 1);
  tokenizer_->offsets_.push_back(0);
  for (const std::optional<std::string>& spelling : spelling_) {
    if (spelling) {
      const auto bytes = BytesOfLetters(*spelling);
      tokenizer_->bytes_.append(bytes ? *bytes : *spelling);
    }
    tokenizer_->offsets_.push_back(static_cast<uint32_t>(tokenizer_->bytes_.size()));
  }
  tokenizer_->special_.assign(spelling_.size(), false);
  for (const AddedToken& token : added_) tokenizer_->special_[token.id] = token.special;
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::Parse(std::string_view json,
                                                                  std::string_view name) {
  return TokenizerJson(name).Read(json);
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::Load(const std::string& path) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return absl::NotFoundError(absl::StrCat(path, ": ", error.message()));
  if (size > kMaxFileBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": got ", size, " bytes, want at most ", kMaxFileBytes));
  }
  std::ifstream file(path, std::ios::binary);
  std::string json((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.good() && !file.eof())
    return absl::UnavailableError(absl::StrCat(path, ": cannot be read"));
  return Parse(json, path);
}

}  // namespace penstock
