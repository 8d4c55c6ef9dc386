// The part of TokenizerJson that reads vocabulary, merges and added tokens.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/base/status_macros.h"
#include "server/model/tokenizer/byte_alphabet.h"
#include "server/model/tokenizer/nfc.h"
#include "server/model/tokenizer/tokenizer_json.h"

namespace penstock {
namespace {

std::string Quoted(const std::string& token) {
  return nlohmann::json(token).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

absl::Status TokenizerJson::ReadModel(const Json& model) {
  const std::string key = "model";
  if (!model.is_object()) return Refuse(key, model, "an object");
  // Files of the first GPT-2 conversions name no type.
  if (model.contains("type")) PENSTOCK_RETURN_IF_ERROR(CheckType(model, key, "BPE"));
  PENSTOCK_RETURN_IF_ERROR(
      CheckKeys(model, key,
                {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
                 "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"}));
  static const Json absent = nullptr;
  const auto value = [&](const char* name) -> const Json& {
    const auto found = model.find(name);
    return found == model.end() ? absent : *found;
  };
  if (const Json& dropout = value("dropout"); !dropout.is_null() && dropout != 0) {
    return Refuse("model.dropout", dropout, "null or 0");
  }
  for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (const Json& text = value(affix); !text.is_null() && text != "") {
      return Refuse(absl::StrCat("model.", affix), text, "null or \"\"");
    }
  }
  PENSTOCK_ASSIGN_OR_RETURN(const bool byte_fallback, Flag(model, key, "byte_fallback", false));
  if (byte_fallback) return Refuse("model.byte_fallback", model["byte_fallback"], "false");
  PENSTOCK_ASSIGN_OR_RETURN(const bool ignore_merges, Flag(model, key, "ignore_merges", false));
  PENSTOCK_RETURN_IF_ERROR(ReadVocabulary(value("vocab")));
  PENSTOCK_RETURN_IF_ERROR(ReadBytes(model));
  PENSTOCK_RETURN_IF_ERROR(ReadMerges(value("merges")));
  if (!ignore_merges) return absl::OkStatus();
  for (const auto& [token, id] : tokenizer_->ids_) {
    if (auto bytes = BytesOfLetters(token); bytes && !bytes->empty()) {
      tokenizer_->model_.AddWholeWord(*bytes, id);
    }
  }
  return absl::OkStatus();
}

absl::Status TokenizerJson::ReadVocabulary(const Json& vocabulary) {
  if (!vocabulary.is_object() || vocabulary.empty())
    return Refuse("model.vocab", vocabulary, "an object of tokens");
  tokenizer_->ids_.reserve(vocabulary.size());
  int64_t highest = 0;
  for (const auto& [token, id] : vocabulary.items()) {
    PENSTOCK_RETURN_IF_ERROR(CheckId(id, absl::StrCat("model.vocab[", Quoted(token), "]")));
    highest = std::max(highest, id.get<int64_t>());
  }
  spelling_.resize(static_cast<size_t>(highest) + 1);
  for (const auto& [token, json_id] : vocabulary.items()) {
    const auto id = json_id.get<int32_t>();
    if (spelling_[id]) {
      return Refuse(absl::StrCat("model.vocab[", Quoted(token), "]"),
                    absl::StrCat(id, ", the id of ", Quoted(*spelling_[id])), "an id of its own");
    }
    spelling_[id] = token;
    tokenizer_->ids_.emplace(token, id);
  }
  model_tokens_ = static_cast<int32_t>(vocabulary.size());
  return absl::OkStatus();
}

absl::Status TokenizerJson::ReadBytes(const Json& model) {
  int tokens = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const auto found =
        tokenizer_->ids_.find(LettersOfBytes(std::string(1, static_cast<char>(byte))));
    if (found == tokenizer_->ids_.end()) continue;
    tokenizer_->model_.SetByteToken(static_cast<uint8_t>(byte), found->second);
    ++tokens;
  }
  if (tokens == 0) {
    return Refuse("model.vocab", std::string("no token of a single byte"),
                  "a byte-level vocabulary");
  }
  const auto unknown = model.find("unk_token");
  if (tokens < 256 && unknown != model.end() && !unknown->is_null()) {
    return Refuse("model.unk_token", *unknown,
                  absl::StrCat("null, or a token for each byte (", 256 - tokens, " have none)"));
  }
  return absl::OkStatus();
}

absl::Status TokenizerJson::ReadMerges(const Json& merges) {
  if (!merges.is_array()) return Refuse("model.merges", merges, "a list");
  for (size_t i = 0; i < merges.size(); ++i) {
    PENSTOCK_RETURN_IF_ERROR(ReadMerge(merges[i], absl::StrCat("model.merges[", i, "]")));
  }
  return absl::OkStatus();
}

absl::Status TokenizerJson::ReadMerge(const Json& merge, const std::string& key) {
  absl::string_view left, right;
  if (merge.is_string()) {
    const auto& text = merge.get_ref<const std::string&>();
    if (text.starts_with("#version")) return absl::OkStatus();  // first line of a merges.txt
    const size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
      return Refuse(key, merge, "two tokens, one space between them");
    }
    left = absl::string_view(text).substr(0, space);
    right = absl::string_view(text).substr(space + 1);
  } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
             merge[1].is_string()) {
    left = merge[0].get_ref<const std::string&>();
    right = merge[1].get_ref<const std::string&>();
  } else {
    return Refuse(key, merge, "\"a b\" or [\"a\", \"b\"]");
  }
  int32_t ids[3];
  const std::string tokens[3] = {std::string(left), std::string(right), absl::StrCat(left, right)};
  for (int i = 0; i < 3; ++i) {
    const auto found = tokenizer_->ids_.find(tokens[i]);
    if (found == tokenizer_->ids_.end())
      return Refuse(key, Quoted(tokens[i]), "a token of model.vocab");
    ids[i] = found->second;
  }
  if (!tokenizer_->model_.AddMerge(ids[0], ids[1], ids[2])) {
    return Refuse(key, absl::StrCat(Quoted(tokens[0]), " and ", Quoted(tokens[1]), " again"),
                  "one merge for each pair");
  }
  return absl::OkStatus();
}

absl::StatusOr<AddedToken> TokenizerJson::ReadAddedToken(const Json& token,
                                                         const std::string& key) const {
  PENSTOCK_RETURN_IF_ERROR(CheckKeys(
      token, key, {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}));
  const auto id = token.find("id"), content = token.find("content");
  if (id == token.end()) return Refuse(key + ".id", std::string("none"), "an id");
  PENSTOCK_RETURN_IF_ERROR(CheckId(*id, key + ".id"));
  if (content == token.end() || !content->is_string() || *content == "") {
    return Refuse(key + ".content", content == token.end() ? Json(nullptr) : *content,
                  "a text that isn't empty");
  }
  AddedToken added;
  added.id = id->get<int32_t>();
  added.content = content->get<std::string>();
  PENSTOCK_ASSIGN_OR_RETURN(added.special, Flag(token, key, "special", false));
  PENSTOCK_ASSIGN_OR_RETURN(added.single_word, Flag(token, key, "single_word", false));
  PENSTOCK_ASSIGN_OR_RETURN(added.lstrip, Flag(token, key, "lstrip", false));
  PENSTOCK_ASSIGN_OR_RETURN(added.rstrip, Flag(token, key, "rstrip", false));
  PENSTOCK_ASSIGN_OR_RETURN(added.normalized, Flag(token, key, "normalized", !added.special));
  return added;
}

// The id of an added token must be the one that Hugging Face tokenizers gives it, whatever the file
// says: that of its content in the vocabulary, else the next free one.
absl::Status TokenizerJson::Register(const AddedToken& token, const std::string& key) {
  const auto known = tokenizer_->ids_.find(token.content);
  const bool is_new = known == tokenizer_->ids_.end();
  const int32_t want = is_new ? std::max(next_added_id_, model_tokens_) : known->second;
  if (token.id != want) {
    return Refuse(key + ".id", absl::StrCat(token.id),
                  absl::StrCat(want, " for ", Quoted(token.content)));
  }
  const auto at = static_cast<size_t>(want);
  if (at >= spelling_.size()) spelling_.resize(at + 1);
  is_added_.resize(spelling_.size());
  if (is_added_[at]) return Refuse(key + ".content", Quoted(token.content), "each token once");
  if (is_new && spelling_[at]) {
    return Refuse(key + ".id", absl::StrCat(want, ", the id of ", Quoted(*spelling_[at])),
                  "an id of its own");
  }
  is_added_[at] = true;
  // Hugging Face decodes a token that it looks for normalized to the normalized content.
  spelling_[at] =
      token.normalized && tokenizer_->normalizes_ ? NormalizeNfc(token.content) : token.content;
  next_added_id_ = std::max(next_added_id_, want + 1);
  tokenizer_->ids_.emplace(token.content, want);
  added_.push_back(token);
  return absl::OkStatus();
}

void TokenizerJson::FillFinders() {
  for (const bool special :
       {true, false}) {  // of equal patterns Hugging Face finds the special token
    for (const AddedToken& token : added_) {
      if (token.special != special) continue;
      if (token.normalized) {
        tokenizer_->normalized_tokens_.Add(
            tokenizer_->normalizes_ ? NormalizeNfc(token.content) : token.content, token);
      } else {
        tokenizer_->raw_tokens_.Add(token.content, token);
      }
    }
  }
}

absl::Status TokenizerJson::ReadAddedTokens(const Json& tokens) {
  if (!tokens.is_null() && !tokens.is_array()) return Refuse("added_tokens", tokens, "a list");
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::string key = absl::StrCat("added_tokens[", i, "]");
    PENSTOCK_ASSIGN_OR_RETURN(const AddedToken token, ReadAddedToken(tokens[i], key));
    PENSTOCK_RETURN_IF_ERROR(Register(token, key));
  }
  FillFinders();
  return absl::OkStatus();
}

}  // namespace penstock
