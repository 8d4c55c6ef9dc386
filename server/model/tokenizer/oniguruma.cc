// TranslateOniguruma of split_pattern.h.
#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/model/tokenizer/split_pattern.h"
#include "server/model/tokenizer/unicode_ranges.h"
#include "server/model/tokenizer/utf8.h"

namespace penstock {
namespace {

constexpr std::string_view kGroupStarts[] = {"(?:", "(?i:", "(?>", "(?=", "(?!", "(?<=", "(?<!"};

bool IsAsciiPunctuation(char c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
         (c >= '{' && c <= '~');
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : rest_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (!rest_.empty()) {
      absl::Status status = absl::OkStatus();
      switch (rest_[0]) {
        case '\\':
          status = Escape();
          break;
        case '[':
          status = Class();
          break;
        case '(':
          status = Group();
          break;
        case '{':
          status = Repeat();
          break;
        case '^':
        case '$':
          return Refuse(1);
        case ']':
        case '}':
          Literal();
          break;
        default:
          Copy(1);
      }
      if (!status.ok()) return status;
    }
    return std::move(out_);
  }

 private:
  absl::Status Refuse(size_t size) const {
    const std::string_view quoted = rest_.substr(0, std::min(size, rest_.size()));
    return absl::InvalidArgumentError(absl::StrCat("\"",
                                                   absl::string_view(quoted.data(), quoted.size()),
                                                   "\" is not supported in a pattern (supported: "
                                                   "groups, quantifiers, classes, \\p{L}, \\p{N}, "
                                                   "\\s, \\S, \\r, \\n, \\t, literals)"));
  }

  bool Starts(std::string_view with) const { return rest_.substr(0, with.size()) == with; }

  void Copy(size_t size) {
    out_.append(rest_.substr(0, size));
    rest_.remove_prefix(size);
  }

  void Literal() {
    out_.push_back('\\');
    Copy(1);
  }

  absl::Status Group() {
    if (!Starts("(?") && !Starts("(*")) {
      Copy(1);
      return absl::OkStatus();
    }
    for (const std::string_view start : kGroupStarts) {
      if (!Starts(start)) continue;
      Copy(start.size());
      return start == "(?i:" ? CaselessGroup() : absl::OkStatus();
    }
    return Refuse(4);
  }

  // Letters, apostrophes and bars up to the parenthesis. Oniguruma folds some pairs of letters into
  // one character (ss matches U+00DF), PCRE2 none.
  absl::Status CaselessGroup() {
    while (!rest_.empty() && rest_[0] != ')') {
      for (const std::string_view pair : {"ff", "fi", "fl", "ss", "st"}) {
        if (absl::EqualsIgnoreCase(
                absl::string_view(rest_.data(), std::min<size_t>(2, rest_.size())),
                absl::string_view(pair.data(), pair.size()))) {
          return Refuse(2);
        }
      }
      if (!absl::ascii_isalpha(static_cast<unsigned char>(rest_[0])) && rest_[0] != '\'' &&
          rest_[0] != '|') {
        return Refuse(1);
      }
      Copy(1);
    }
    return absl::OkStatus();
  }

  // {n}, {n,}, {n,m} mean the same to both; {,m} and a brace that quantifies nothing do not.
  absl::Status Repeat() {
    size_t at = 1, digits = 0;
    while (at < rest_.size() && rest_[at] >= '0' && rest_[at] <= '9') ++at, ++digits;
    if (digits > 0 && at < rest_.size() && rest_[at] == ',') {
      ++at;
      while (at < rest_.size() && rest_[at] >= '0' && rest_[at] <= '9') ++at;
    }
    if (digits == 0 || at >= rest_.size() || rest_[at] != '}') return Refuse(at + 1);
    // Oniguruma reads {n}+ as a repeated repetition, PCRE2 as a possessive one.
    if (at + 1 < rest_.size() && rest_[at + 1] == '+') return Refuse(at + 2);
    Copy(at + 1);
    return absl::OkStatus();
  }

  absl::Status Escape() {
    if (Property()) return absl::OkStatus();
    if (rest_.size() < 2) return Refuse(1);
    switch (rest_[1]) {
      case 's':
        return Replace(2, absl::StrCat("[", kWhiteSpaceClass, "]"));
      case 'S':
        return Replace(2, absl::StrCat("[^", kWhiteSpaceClass, "]"));
      default:
        return Plain();
    }
  }

  // \r \n \t and escaped punctuation, the same inside and outside classes.
  absl::Status Plain() {
    const char c = rest_.size() < 2 ? '\0' : rest_[1];
    if (c != 'r' && c != 'n' && c != 't' && !IsAsciiPunctuation(c)) return Refuse(2);
    Copy(2);
    return absl::OkStatus();
  }

  absl::Status Replace(size_t size, const std::string& with) {
    out_.append(with);
    rest_.remove_prefix(size);
    return absl::OkStatus();
  }

  bool Property() {
    if (Starts("\\p{L}") || Starts("\\P{L}") || Starts("\\p{N}") || Starts("\\P{N}")) {
      const std::string members = rest_[3] == 'L' ? absl::StrCat("\\p{L}", ClassOf(AddedLetters()))
                                                  : absl::StrCat("\\p{N}", ClassOf(AddedNumbers()));
      (void)Replace(5, absl::StrCat(rest_[1] == 'P' ? "[^" : "[", members, "]"));
      return true;
    }
    return false;
  }

  absl::Status Class() {
    Copy(1);
    if (Starts("^")) Copy(1);
    if (Starts("]")) return Refuse(1);
    while (!Starts("]")) {
      if (rest_.empty()) return absl::InvalidArgumentError("a class has no end");
      if (Starts("[") || Starts("&&")) return Refuse(2);
      if (Starts("\\p{L}")) {
        (void)Replace(5, absl::StrCat("\\p{L}", ClassOf(AddedLetters())));
      } else if (Starts("\\p{N}")) {
        (void)Replace(5, absl::StrCat("\\p{N}", ClassOf(AddedNumbers())));
      } else if (Starts("\\s")) {
        (void)Replace(2, kWhiteSpaceClass);
      } else if (Starts("\\S")) {
        (void)Replace(2, "\\S\\x{180e}");
      } else if (Starts("\\")) {
        if (absl::Status status = Plain(); !status.ok()) return status;
      } else {
        Copy(1);
      }
    }
    Copy(1);
    return absl::OkStatus();
  }

  std::string_view rest_;
  std::string out_;
};

}  // namespace

absl::StatusOr<std::string> TranslateOniguruma(std::string_view pattern) {
  if (const auto at = FindInvalidUtf8(pattern)) {
    return absl::InvalidArgumentError(absl::StrCat("invalid UTF-8 at byte ", *at));
  }
  return Translator(pattern).Run();
}

}  // namespace penstock
