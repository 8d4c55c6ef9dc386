#include "server/model/tokenizer/nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "server/base/check.h"
#include "server/model/tokenizer/unicode_ranges.h"
#include "server/model/tokenizer/utf8.h"

namespace penstock {
namespace {

// No code point below this one decomposes into, composes with or reorders around its neighbours,
// unless one at or above it takes part (U+0300 is the first combining mark).
constexpr unsigned char kLeadByteOfFirstMark = 0xCC;

// One before the first trailing consonant of Hangul. It composes with nothing, but utf8proc 2.8
// takes it for a trailing consonant and drops it.
constexpr char32_t kBeforeTrailingConsonants = 0x11A7;

// The canonical ordering algorithm (Unicode 15.0, D109): runs of marks sorted by class, stably.
// utf8proc's own sorts by insertion, which a text of alternating marks would make quadratic.
void OrderCanonically(std::vector<utf8proc_int32_t>* code_points) {
  const auto combining_class = [](utf8proc_int32_t c) {
    return utf8proc_get_property(c)->combining_class;
  };
  const auto is_mark = [&](utf8proc_int32_t c) { return combining_class(c) != 0; };
  for (auto at = code_points->begin(); at != code_points->end();) {
    const auto first = std::find_if(at, code_points->end(), is_mark);
    at = std::find_if_not(first, code_points->end(), is_mark);
    std::stable_sort(first, at, [&](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(a) < combining_class(b);
    });
  }
}

// Appends the composed form of the decomposed `segment` to `out` and empties it.
void ComposeInto(std::vector<utf8proc_int32_t>* segment, std::string* out) {
  OrderCanonically(segment);
  const utf8proc_ssize_t size =
      utf8proc_normalize_utf32(segment->data(), static_cast<utf8proc_ssize_t>(segment->size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  PENSTOCK_CHECK_GE(size, 0);
  for (utf8proc_ssize_t i = 0; i < size; ++i) {
    AppendUtf8(static_cast<char32_t>((*segment)[i]), out);
  }
  segment->clear();
}

}  // namespace

std::string NormalizeNfc(std::string_view text) {
  const bool is_normal = std::all_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) < kLeadByteOfFirstMark;
  });
  if (is_normal) return std::string(text);

  std::string out;
  out.reserve(text.size());
  std::vector<utf8proc_int32_t> segment;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = CodePointAt(text, at);
    at += c.size;
    // What Unicode 9 doesn't know is a starter that composes with nothing: the text falls apart at
    // it.
    if (c.value == kBeforeTrailingConsonants || Contains(NormalizesSinceUnicode9(), c.value)) {
      ComposeInto(&segment, &out);
      AppendUtf8(c.value, &out);
      continue;
    }
    utf8proc_int32_t decomposed[4];  // no canonical decomposition is longer
    int boundary = 0;
    const utf8proc_ssize_t size = utf8proc_decompose_char(
        static_cast<utf8proc_int32_t>(c.value), decomposed, 4,
        static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE), &boundary);
    PENSTOCK_CHECK(size >= 0 && size <= 4) << "U+" << std::hex << static_cast<uint32_t>(c.value);
    segment.insert(segment.end(), decomposed, decomposed + size);
  }
  ComposeInto(&segment, &out);
  return out;
}

}  // namespace penstock
