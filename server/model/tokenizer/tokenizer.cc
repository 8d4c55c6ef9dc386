#include "server/model/tokenizer/tokenizer.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/model/tokenizer/nfc.h"
#include "server/model/tokenizer/utf8.h"

namespace penstock {
namespace {

// Words repeat in a text; longer ones seldom do, and are not worth the memory.
constexpr size_t kMaxCachedWordBytes = 32;

absl::string_view AbslView(std::string_view text) { return {text.data(), text.size()}; }

// Encodes the words of one text, remembering short ones.
class WordEncoder {
 public:
  WordEncoder(const BpeModel& model, std::vector<int32_t>* ids) : model_(model), ids_(*ids) {}

  void Encode(std::string_view word) {
    if (word.size() > kMaxCachedWordBytes) {
      model_.Encode(word, &scratch_, &ids_);
      return;
    }
    const auto [seen, is_new] = seen_.try_emplace(AbslView(word), Stretch{ids_.size(), 0});
    if (is_new) {
      model_.Encode(word, &scratch_, &ids_);
      seen->second.size = ids_.size() - seen->second.first;
      return;
    }
    for (size_t i = 0; i < seen->second.size; ++i) ids_.push_back(ids_[seen->second.first + i]);
  }

 private:
  struct Stretch {
    size_t first, size;  // of ids_
  };

  const BpeModel& model_;
  std::vector<int32_t>& ids_;
  BpeScratch scratch_;
  absl::flat_hash_map<std::string, Stretch> seen_;
};

}  // namespace

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(std::string_view text,
                                                       bool parse_special) const {
  if (const auto at = FindInvalidUtf8(text)) {
    return InvalidField("text", absl::StrCat("invalid UTF-8 at byte ", *at), "UTF-8");
  }
  if (text.size() > std::numeric_limits<int32_t>::max() / 4) {
    return InvalidField("text", absl::StrCat(text.size(), " bytes"), "less than 512 MiB");
  }
  std::vector<int32_t> ids;
  WordEncoder encoder(model_, &ids);
  Words words;
  std::vector<TextPiece> raw, normal;
  raw_tokens_.Cut(text, parse_special, &raw);
  for (const TextPiece& raw_piece : raw) {
    if (raw_piece.id >= 0) {
      ids.push_back(raw_piece.id);
      continue;
    }
    const std::string normalized = normalizes_ ? NormalizeNfc(raw_piece.text) : std::string();
    normal.clear();
    normalized_tokens_.Cut(normalizes_ ? std::string_view(normalized) : raw_piece.text,
                           parse_special, &normal);
    for (const TextPiece& piece : normal) {
      if (piece.id >= 0) {
        ids.push_back(piece.id);
        continue;
      }
      PENSTOCK_RETURN_IF_ERROR(pre_tokenizer_.Cut(piece.text, &words));
      for (const std::string_view word : words.words) encoder.Encode(word);
    }
  }
  return ids;
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special) const {
  std::string text;
  Utf8Replacer replacer;
  for (const int32_t id : ids) {
    if (skip_special && IsSpecial(id)) continue;
    replacer.Append(TokenBytes(id), &text);
  }
  replacer.Finish(&text);
  return text;
}

std::string_view Tokenizer::TokenBytes(int32_t id) const {
  if (id < 0 || id >= VocabSize()) return {};
  return std::string_view(bytes_).substr(offsets_[id], offsets_[id + 1] - offsets_[id]);
}

bool Tokenizer::IsSpecial(int32_t id) const {
  return id >= 0 && id < VocabSize() && special_[static_cast<size_t>(id)];
}

std::optional<int32_t> Tokenizer::TokenToId(std::string_view token) const {
  const auto found = ids_.find(AbslView(token));
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

}  // namespace penstock
