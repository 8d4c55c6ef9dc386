#include "routers/package/quote.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace penstock {

std::string Quote(std::string_view text) {
  constexpr std::size_t kLongest = 200;
  std::size_t length = std::min(text.size(), kLongest);
  // Never in the middle of a UTF-8 sequence (its other bytes are 10xxxxxx).
  while (length < text.size() && length > 0 && (text[length] & 0xC0) == 0x80) --length;
  const absl::string_view shown(text.data(), length);
  return absl::StrCat("\"", absl::Utf8SafeCHexEscape(shown), length < text.size() ? "…" : "", "\"");
}

}  // namespace penstock
