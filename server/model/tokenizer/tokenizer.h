// Text to token ids and back, as the tokenizer.json of a checkpoint says.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "server/model/tokenizer/added_tokens.h"
#include "server/model/tokenizer/bpe.h"
#include "server/model/tokenizer/pre_tokenizer.h"

namespace penstock {

// Byte-level BPE as Hugging Face tokenizers runs it: added tokens, NFC, pre-tokenizer, merges;
// equal to it id by id (tests/parity/tokenizer_test.py). Immutable and safe to share between
// threads.
class Tokenizer {
 public:
  // Reads a tokenizer.json (at most 256 MiB). Understood are:
  //   normalizer      null or NFC
  //   pre_tokenizer   ByteLevel, or a Sequence of Split (Regex, Isolated) and Digits that ends with
  //   ByteLevel model           BPE without dropout, prefix, suffix and byte_fallback; merges as "a
  //   b" or ["a", "b"] decoder         ByteLevel; post_processor null or ByteLevel (it only moves
  //   offsets) added_tokens    with all their flags
  // NOT_FOUND when there is no such file; INVALID_ARGUMENT "<file>: <key>: got <value>, want
  // <value>" for everything else, also for merges and ids that don't fit together.
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> Load(const std::string& path);

  // The same from the file's content; `name` stands in errors.
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> Parse(
      std::string_view json, std::string_view name = "tokenizer.json");

  // The ids of `text`. With `parse_special`, special tokens spelled in the text become themselves
  // (chat templates need that), without it they are plain text (a user's words); other added tokens
  // are found either way. Nothing is put in front or behind. Time grows as n log n at worst.
  // INVALID_ARGUMENT, field `text`, when it isn't UTF-8; RESOURCE_EXHAUSTED from the
  // pre-tokenizer's pattern (see SplitPattern).
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text, bool parse_special) const;

  // The text of `ids`: their bytes, with U+FFFD for what isn't UTF-8 (Utf8Replacer). Ids outside
  // the vocabulary are passed over, as are special ones with `skip_special`.
  std::string Decode(std::span<const int32_t> ids, bool skip_special) const;

  // The bytes of one token, not always whole characters; empty for an unknown id. Valid as long as
  // this object. As in Hugging Face tokenizers, the content of an added token that is spelled in
  // the byte-level alphabet alone stands for those bytes.
  std::string_view TokenBytes(int32_t id) const;

  // One past the highest id. (Embedding tables may be larger.)
  int32_t VocabSize() const { return static_cast<int32_t>(offsets_.size()) - 1; }

  bool IsSpecial(int32_t id) const;

  // By the spelling of the file ("Ġthe"), added tokens included.
  std::optional<int32_t> TokenToId(std::string_view token) const;

 private:
  friend class TokenizerJson;  // builds it
  Tokenizer() = default;

  bool normalizes_ = false;
  AddedTokenFinder raw_tokens_;         // looked for in the text as it came
  AddedTokenFinder normalized_tokens_;  // looked for in the normalized text
  PreTokenizer pre_tokenizer_;
  BpeModel model_;
  std::string bytes_;              // of all tokens, by id
  std::vector<uint32_t> offsets_;  // [VocabSize() + 1] into bytes_
  std::vector<bool> special_;      // [VocabSize()]
  absl::flat_hash_map<std::string, int32_t> ids_;
};

}  // namespace penstock
