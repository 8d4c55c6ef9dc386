// Cuts a Jinja source into text, tags and their tokens.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace penstock::jinja {

struct Token {
  enum class Kind { kName, kString, kInteger, kOperator, kEnd };
  Kind kind = Kind::kEnd;
  std::string text;  // strings: unescaped
};

// A stretch of text, or the tokens of one tag.
struct Segment {
  enum class Kind { kText, kOutput, kStatement };
  Kind kind;
  int line;                   // of its start, from 1
  std::string text;           // kText
  std::vector<Token> tokens;  // of a tag, ended by kEnd
};

// White space is already cut as `-`, `+`, trim_blocks and lstrip_blocks ask; comments are gone.
absl::StatusOr<std::vector<Segment>> Lex(std::string_view source);

// INVALID_ARGUMENT "line 3: …".
absl::Status NotUnderstood(int line, std::string_view what);

}  // namespace penstock::jinja
