#include "server/model/tokenizer/added_tokens.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/model/tokenizer/split_pattern.h"
#include "server/model/tokenizer/unicode_ranges.h"
#include "server/model/tokenizer/utf8.h"

namespace penstock {
namespace {

// \w of the regex crate (Unicode technical standard 18, annex C).
bool IsWordCharacter(char32_t c) {
  static const SplitPattern* const word = [] {
    auto pattern =
        SplitPattern::Compile(absl::StrCat("[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}",
                                           ClassOf(AddedWordCharacters()), "]"));
    PENSTOCK_CHECK(pattern.ok()) << pattern.status();
    return new SplitPattern(*std::move(pattern));
  }();
  std::string text;
  AppendUtf8(c, &text);
  return word->Finds(text);
}

bool StandsAlone(std::string_view text, size_t first, size_t last) {
  return (first == 0 || !IsWordCharacter(CodePointBefore(text, first).value)) &&
         (last == text.size() || !IsWordCharacter(CodePointAt(text, last).value));
}

// First byte of the white space that ends before text[end], not before `bound`.
size_t WhiteSpaceBefore(std::string_view text, size_t end, size_t bound) {
  while (end > bound) {
    const CodePoint c = CodePointBefore(text, end);
    if (!IsWhiteSpace(c.value)) break;
    end -= c.size;
  }
  return end;
}

size_t WhiteSpaceAfter(std::string_view text, size_t at) {
  while (at < text.size()) {
    const CodePoint c = CodePointAt(text, at);
    if (!IsWhiteSpace(c.value)) break;
    at += c.size;
  }
  return at;
}

}  // namespace

void AddedTokenFinder::Add(std::string_view pattern, const AddedToken& token) {
  PENSTOCK_CHECK(!pattern.empty()) << token.id;
  int32_t node = kRoot;
  for (const char byte : pattern) {
    const auto [child, is_new] =
        children_.try_emplace(Edge(node, byte), static_cast<int32_t>(token_at_.size()));
    if (is_new) token_at_.push_back(-1);
    node = child->second;
  }
  starts_[static_cast<uint8_t>(pattern[0])] = true;
  if (token_at_[node] >= 0) return;
  token_at_[node] = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(token);
}

AddedTokenFinder::Match AddedTokenFinder::LongestAt(std::string_view text, size_t at) const {
  Match longest;
  int32_t node = kRoot;
  for (size_t i = at; i < text.size(); ++i) {
    const auto child = children_.find(Edge(node, text[i]));
    if (child == children_.end()) break;
    node = child->second;
    if (token_at_[node] >= 0) longest = {token_at_[node], i + 1 - at};
  }
  return longest;
}

void AddedTokenFinder::Cut(std::string_view text, bool parse_special,
                           std::vector<TextPiece>* pieces) const {
  size_t taken = 0;  // up to here the text is in `pieces`
  for (size_t at = 0; at < text.size();) {
    const Match match = starts_[static_cast<uint8_t>(text[at])] ? LongestAt(text, at) : Match{};
    if (match.token < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[match.token];
    const size_t match_end = at + match.size;
    size_t first = at, last = match_end;
    at = match_end;
    if (token.special && !parse_special) continue;
    if (token.single_word && !StandsAlone(text, first, last)) continue;
    // The token before may have stripped white space that this match starts with.
    if (token.lstrip) first = WhiteSpaceBefore(text, first, std::min(taken, first));
    if (token.rstrip) last = WhiteSpaceAfter(text, last);
    if (first > taken) pieces->push_back({text.substr(taken, first - taken), -1});
    pieces->push_back({text.substr(first, last - first), token.id});
    taken = last;
  }
  if (taken < text.size()) pieces->push_back({text.substr(taken), -1});
}

}  // namespace penstock
