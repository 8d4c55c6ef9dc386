#include "server/model/tokenizer/split_pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Pieces(std::string_view pattern, std::string_view text) {
  const auto translated = TranslateOniguruma(pattern);
  EXPECT_TRUE(translated.ok()) << translated.status();
  const auto compiled = SplitPattern::Compile(*translated);
  EXPECT_TRUE(compiled.ok()) << compiled.status();
  std::vector<std::string_view> pieces;
  EXPECT_TRUE(compiled->Split(text, &pieces).ok());
  return {pieces.begin(), pieces.end()};
}

TEST(SplitPatternTest, KeepsMatchesAndWhatLiesBetween) {
  EXPECT_THAT(Pieces("\\p{L}+", "1ab2 cd"), ElementsAre("1", "ab", "2 ", "cd"));
  EXPECT_THAT(Pieces("x", "abc"), ElementsAre("abc"));
}

TEST(SplitPatternTest, ReadsQwensPattern) {
  constexpr char kQwen[] =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  EXPECT_THAT(Pieces(kQwen, "It'S  a test\n\n 12!?\n x"),
              ElementsAre("It", "'S", " ", " a", " test", "\n\n", " ", "1", "2", "!?\n", " x"));
}

TEST(SplitPatternTest, HasTheClassesOfHuggingFacesUnicode) {
  // U+180E is white space to PCRE2 alone; U+1C89 is a letter since Unicode 16.
  EXPECT_THAT(Pieces("\\s+", "a\u180Eb"), ElementsAre("a\u180Eb"));
  EXPECT_THAT(Pieces("\\p{L}+", "!\u1C89!"), ElementsAre("!", "\u1C89", "!"));
  EXPECT_THAT(Pieces("[^\\s\\p{L}]+", "a!\u180E\u1C89"), ElementsAre("a", "!\u180E", "\u1C89"));
  EXPECT_THAT(Pieces("[\\S]+", "a\u180E b"), ElementsAre("a\u180E", " ", "b"));
}

TEST(SplitPatternTest, RefusesWhatTheEnginesReadDifferently) {
  for (const char* pattern :
       {"^a",       "a$",    "\\h",    "\\w+", "\\d",        "\\bx",   "\\p{Lu}", "\\p{Han}",
        "[\\P{L}]", "[[a]]", "[a&&b]", "[]a]", "(?<name>a)", "(?m:a)", "(?i:ss)", "(?i:\u00e9)",
        "(*LF)a",   "a{,3}", "a{2}+",  "\\1",  "\\Ka",       "\\x41",  "a\\"}) {
    const auto translated = TranslateOniguruma(pattern);
    ASSERT_FALSE(translated.ok()) << pattern;
    EXPECT_THAT(std::string(translated.status().message()),
                HasSubstr("is not supported in a pattern"))
        << pattern;
  }
}

TEST(SplitPatternTest, GivesUpOnPatternsThatBacktrackWithoutEnd) {
  const auto compiled = SplitPattern::Compile("(a+)+[bx]");
  ASSERT_TRUE(compiled.ok());
  std::vector<std::string_view> pieces;
  const std::string text(40, 'a');
  const absl::Status status = compiled->Split(text + "c", &pieces);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
}

}  // namespace
}  // namespace penstock
