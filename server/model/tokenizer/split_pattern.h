// A regular expression of a tokenizer.json, which is written for Oniguruma, run by PCRE2.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace penstock {

// `pattern` for PCRE2, meaning what it means to Oniguruma in the Unicode version of Hugging Face
// tokenizers. Taken are: literals, ., |, groups ((?: (?i: (?> (?= (?! (?<= (?<!), quantifiers,
// classes of literals, ranges and escapes, and the escapes \p{L} \p{N} \P{L} \P{N} (the capitals
// outside classes only) \s \S \r \n \t and escaped punctuation; under
// (?i: only ASCII letters, ' and |. What the two engines read differently, or may (anchors, \h, \w,
// \d, \b, other properties, nested classes, back references, foldings of several characters), is
// INVALID_ARGUMENT that quotes it.
absl::StatusOr<std::string> TranslateOniguruma(std::string_view pattern);

// Immutable; safe to share.
class SplitPattern {
 public:
  // Compiles a pattern of PCRE2's own syntax (UTF, Unicode properties, JIT where the machine has
  // it). INVALID_ARGUMENT when it does not compile, or might match the empty string, which would
  // cut without taking anything.
  static absl::StatusOr<SplitPattern> Compile(const std::string& pcre_pattern);

  // Cuts `text` (valid UTF-8) at the bounds of every match: matches and what lies between them are
  // the pieces, in order, none empty, appended to `pieces` as views of `text`. RESOURCE_EXHAUSTED
  // when matching takes more steps than a sane pattern needs for a text of this length.
  absl::Status Split(std::string_view text, std::vector<std::string_view>* pieces) const;

  // Whether `text` (valid UTF-8) holds a match.
  bool Finds(std::string_view text) const;

 private:
  explicit SplitPattern(std::shared_ptr<const void> code) : code_(std::move(code)) {}

  std::shared_ptr<const void> code_;  // pcre2_code: its header stays out of ours
};

}  // namespace penstock
