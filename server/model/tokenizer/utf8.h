// UTF-8: checking, code points, and the replacement of what is invalid.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock {

// One code point of valid UTF-8 and the bytes that it takes.
struct CodePoint {
  char32_t value;
  size_t size;  // 1 to 4
};

// The code point that starts at text[at]. `text` must be valid UTF-8 and `at` the start of a code
// point.
CodePoint CodePointAt(std::string_view text, size_t at);

// The code point that ends before text[end], end > 0. `text` must be valid UTF-8.
CodePoint CodePointBefore(std::string_view text, size_t end);

void AppendUtf8(char32_t code_point, std::string* out);

// Offset of the first byte that belongs to no well-formed sequence (Unicode 15.0, table 3-7: no
// surrogates, no overlong forms, nothing beyond U+10FFFF); nullopt when the text is valid.
std::optional<size_t> FindInvalidUtf8(std::string_view text);

// Turns a stream of bytes into valid UTF-8. An incomplete sequence at the end of one Append is held
// back until the next; each maximal part of an ill-formed sequence becomes one U+FFFD, as Python's
// errors="replace" and Rust's from_utf8_lossy do it. So the concatenation of all output is the same
// however the bytes were cut.
class Utf8Replacer {
 public:
  // Appends to `out` the text that `bytes` completes.
  void Append(std::string_view bytes, std::string* out);

  // The end of the stream: what is still held back becomes one U+FFFD. The object is as new
  // afterwards.
  void Finish(std::string* out);

 private:
  void Start(unsigned char byte, std::string* out);

  std::array<char, 4> held_{};
  size_t held_size_ = 0;      // bytes of an incomplete sequence, 0 to 3
  size_t wanted_size_ = 0;    // length of that sequence once complete
  unsigned char low_ = 0x80;  // range of its next byte
  unsigned char high_ = 0xBF;
};

}  // namespace penstock
