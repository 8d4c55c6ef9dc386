#include "server/model/tokenizer/utf8.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

std::string Replaced(std::string_view bytes) {
  Utf8Replacer replacer;
  std::string text;
  replacer.Append(bytes, &text);
  replacer.Finish(&text);
  return text;
}

// bytes.decode("utf-8", errors="replace") of CPython 3.11.
TEST(Utf8Test, ReplacesMaximalPartsAsPythonDoes) {
  const std::string r = "\uFFFD";
  struct Case {
    std::string_view bytes;
    std::string text;
  };
  const Case cases[] = {
      {"abc\xC3\xA9\xE4\xB8\xAD\xF0\x9F\x98\x80", "abcé中😀"},
      {"\x80", r},
      {"\xC0\xAF", r + r},                     // overlong
      {"\xE0\x80\xAF", r + r + r},             // overlong
      {"\xE2\x82", r},                         // cut off
      {"\xE2\x82\x41", r + "A"},               // broken off
      {"\xED\xA0\x80", r + r + r},             // a surrogate
      {"\xF0\x80\x80\x41", r + r + r + "A"},   // overlong
      {"\xF0\x9F\x98\xE4\xB8\xAD", r + "中"},  // broken off by a good one
      {"\xF4\x90\x80\x80", r + r + r + r},     // beyond U+10FFFF
      {"\xF5\xFF", r + r},
  };
  for (const Case& c : cases) EXPECT_EQ(Replaced(c.bytes), c.text);
}

TEST(Utf8Test, FindsTheFirstInvalidByte) {
  EXPECT_EQ(FindInvalidUtf8("añ中😀"), std::nullopt);
  EXPECT_EQ(FindInvalidUtf8(""), std::nullopt);
  EXPECT_EQ(FindInvalidUtf8("a\xC3"), 1u);
  EXPECT_EQ(FindInvalidUtf8("ab\xED\xA0\x80"), 2u);
  EXPECT_EQ(FindInvalidUtf8("\xF4\x90\x80\x80"), 0u);
}

TEST(Utf8Test, WritesAndReadsEveryCodePoint) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    AppendUtf8(c, &text);
    ASSERT_EQ(FindInvalidUtf8(text), std::nullopt);
    ASSERT_EQ(CodePointAt(text, 0).value, c);
    ASSERT_EQ(CodePointBefore(text, text.size()).size, text.size());
  }
}

}  // namespace
}  // namespace penstock
