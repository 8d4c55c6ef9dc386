#include "server/model/tokenizer/jinja_lexer.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/base/status_macros.h"
#include "server/model/tokenizer/unicode_ranges.h"
#include "server/model/tokenizer/utf8.h"

namespace penstock::jinja {
namespace {

constexpr std::string_view kOperators[] = {"==", "!=", ".", "[", "]", "(", ")",
                                           ":",  ",",  "|", "+", "~", "=", "-"};

// The only white space that Lex lets into a template.
bool IsPadding(char c) { return c == ' ' || c == '\t' || c == '\n'; }

std::string WithUnixNewlines(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      text.push_back(source[i]);
    } else {
      text.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  return text;
}

bool IsNameStart(char c) { return absl::ascii_isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool IsNamePart(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_'; }
bool IsDigit(char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); }

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)), rest_(source_) {}

  absl::StatusOr<std::vector<Segment>> Run() {
    while (!rest_.empty()) {
      const size_t tag = FindTag();
      PENSTOCK_RETURN_IF_ERROR(Text(rest_.substr(0, tag)));
      if (!rest_.empty()) PENSTOCK_RETURN_IF_ERROR(Tag());
    }
    return std::move(segments_);
  }

 private:
  size_t FindTag() const {
    for (size_t at = rest_.find('{'); at != std::string_view::npos; at = rest_.find('{', at + 1)) {
      const char next = at + 1 < rest_.size() ? rest_[at + 1] : '\0';
      if (next == '{' || next == '%' || next == '#') return at;
    }
    return rest_.size();
  }

  void Advance(size_t size) {
    line_ += static_cast<int>(
        std::count(rest_.begin(), rest_.begin() + static_cast<std::ptrdiff_t>(size), '\n'));
    rest_.remove_prefix(size);
  }

  // Text before a tag, or the last of the source.
  absl::Status Text(std::string_view text) {
    const int line = line_;
    const bool at_line_start = at_line_start_;
    Advance(text.size());
    const std::string_view tag = rest_.substr(0, std::min<size_t>(3, rest_.size()));
    std::string_view kept = text;
    if (tag.size() == 3 && tag[2] == '-') {
      while (!kept.empty() && IsPadding(kept.back())) kept.remove_suffix(1);
    } else if (!tag.empty() && tag[1] != '{' && !(tag.size() == 3 && tag[2] == '+')) {
      // lstrip_blocks: nothing but white space between the line's start and the tag.
      const size_t newline = kept.rfind('\n');
      const size_t start = newline == std::string_view::npos ? 0 : newline + 1;
      if ((start > 0 || at_line_start) &&
          std::all_of(kept.begin() + static_cast<std::ptrdiff_t>(start), kept.end(), IsPadding)) {
        kept = kept.substr(0, start);
      }
    }
    if (!kept.empty()) segments_.push_back({Segment::Kind::kText, line, std::string(kept), {}});
    return absl::OkStatus();
  }

  absl::Status Tag() {
    const char kind = rest_[1];
    Segment segment{
        kind == '{' ? Segment::Kind::kOutput : Segment::Kind::kStatement, line_, {}, {}};
    Advance(2);
    if (!rest_.empty() && (rest_[0] == '-' || rest_[0] == '+')) Advance(1);
    if (kind == '#') return Comment();
    const std::string_view end = kind == '{' ? "}}" : "%}";
    while (true) {
      while (!rest_.empty() && IsPadding(rest_[0])) Advance(1);
      if (rest_.empty()) return NotUnderstood(segment.line, "a tag has no end");
      if (CloseTag(end, kind == '%')) break;
      PENSTOCK_ASSIGN_OR_RETURN(Token token, Next());
      segment.tokens.push_back(std::move(token));
    }
    segment.tokens.emplace_back();
    segments_.push_back(std::move(segment));
    return absl::OkStatus();
  }

  absl::Status Comment() {
    const size_t end = rest_.find("#}");
    if (end == std::string_view::npos) return NotUnderstood(line_, "a comment has no end");
    const bool has_sign = end > 0 && (rest_[end - 1] == '-' || rest_[end - 1] == '+');
    Advance(has_sign ? end - 1 : end);
    (void)CloseTag("#}", true);
    return absl::OkStatus();
  }

  // Takes the end of a tag and the white space that goes with it; false when it doesn't stand here.
  bool CloseTag(std::string_view end, bool is_block) {
    size_t size = 0;
    const bool strips = rest_[0] == '-' && rest_.substr(1, 2) == end;
    const bool keeps = is_block && rest_[0] == '+' && rest_.substr(1, 2) == end;
    if (strips || keeps) {
      size = 3;
    } else if (rest_.substr(0, 2) == end) {
      size = 2;
    } else {
      return false;
    }
    if (strips) {
      while (size < rest_.size() && IsPadding(rest_[size])) ++size;
    } else if (is_block && !keeps && size < rest_.size() && rest_[size] == '\n') {
      ++size;  // trim_blocks
    }
    at_line_start_ = rest_[size - 1] == '\n';
    Advance(size);
    return true;
  }

  absl::StatusOr<Token> Next() {
    const char first = rest_[0];
    size_t size = 1;
    if (IsNameStart(first)) {
      while (size < rest_.size() && IsNamePart(rest_[size])) ++size;
      return Take(Token::Kind::kName, size);
    }
    if (IsDigit(first)) {
      while (size < rest_.size() && IsDigit(rest_[size])) ++size;
      if (size > 9 || (size < rest_.size() && (IsNamePart(rest_[size]) || rest_[size] == '.'))) {
        return NotUnderstood(line_, absl::StrCat("the number at \"", Ahead(), "\""));
      }
      return Take(Token::Kind::kInteger, size);
    }
    if (first == '\'' || first == '"') return String(first);
    for (const std::string_view name : kOperators) {
      if (rest_.substr(0, name.size()) == name) return Take(Token::Kind::kOperator, name.size());
    }
    return NotUnderstood(line_, absl::StrCat("\"", Ahead(), "\""));
  }

  Token Take(Token::Kind kind, size_t size) {
    Token token{kind, std::string(rest_.substr(0, size))};
    Advance(size);
    return token;
  }

  absl::StatusOr<Token> String(char quote) {
    Token token{Token::Kind::kString, {}};
    for (size_t at = 1; at < rest_.size(); ++at) {
      if (rest_[at] == quote) {
        Advance(at + 1);
        return token;
      }
      if (rest_[at] != '\\') {
        token.text.push_back(rest_[at]);
        continue;
      }
      const char escaped = ++at < rest_.size() ? rest_[at] : '\0';
      switch (escaped) {
        case 'n':
          token.text.push_back('\n');
          break;
        case 't':
          token.text.push_back('\t');
          break;
        case 'r':
          token.text.push_back('\r');
          break;
        case '\\':
        case '\'':
        case '"':
          token.text.push_back(escaped);
          break;
        default:
          return NotUnderstood(line_, absl::StrCat("the escape \\", std::string(1, escaped)));
      }
    }
    return NotUnderstood(line_, "a string has no end");
  }

  std::string Ahead() const {
    return std::string(rest_.substr(0, std::min<size_t>(20, rest_.size())));
  }

  const std::string source_;
  std::string_view rest_;
  int line_ = 1;
  bool at_line_start_ = true;
  std::vector<Segment> segments_;
};

}  // namespace

absl::Status NotUnderstood(int line, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(
      "line ", line, ": ", absl::string_view(what.data(), what.size()), " is not understood"));
}

absl::StatusOr<std::vector<Segment>> Lex(std::string_view source) {
  if (const auto at = FindInvalidUtf8(source)) {
    return absl::InvalidArgumentError(absl::StrCat("invalid UTF-8 at byte ", *at));
  }
  std::string text = WithUnixNewlines(source);
  // Python strips around tags whatever it calls white space; so that there is only one kind, the
  // rest is refused.
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = CodePointAt(text, at);
    const bool is_space = IsWhiteSpace(c.value) || (c.value >= 0x1C && c.value <= 0x1F);
    if (is_space && !(c.size == 1 && IsPadding(text[at]))) {
      const auto line = static_cast<int>(
          1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n'));
      return NotUnderstood(
          line, absl::StrFormat("the white space U+%04X", static_cast<uint32_t>(c.value)));
    }
    at += c.size;
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();  // keep_trailing_newline is off
  return Lexer(std::move(text)).Run();
}

}  // namespace penstock::jinja
