// Cuts a text into the words that byte pair encoding never merges across.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/model/tokenizer/split_pattern.h"

namespace penstock {

// The words of one text, views of it or of `storage`.
struct Words {
  std::vector<std::string_view> words;
  std::deque<std::string> storage;  // texts that got a space in front
};

// A chain of pre-tokenizers of Hugging Face tokenizers, each cutting the pieces of the one before.
// Immutable; safe to share.
class PreTokenizer {
 public:
  // Split(Regex, Isolated): `pattern` as TranslateOniguruma takes it.
  absl::Status AddSplit(std::string_view pattern);

  // Digits: numeric characters one by one, or in runs.
  absl::Status AddDigits(bool individual);

  // ByteLevel without its alphabet: a space before each piece that has none, then the pattern of
  // GPT-2 (Radford et al. 2019, encoder.py).
  absl::Status AddByteLevel(bool add_prefix_space, bool use_regex);

  // Replaces what `out` holds by the words of `text` (valid UTF-8), in order and together the text,
  // but for added spaces. `text` must outlive `out`.
  absl::Status Cut(std::string_view text, Words* out) const;

 private:
  struct PrefixSpace {};

  std::vector<std::variant<SplitPattern, PrefixSpace>> steps_;
};

}  // namespace penstock
