// Unicode normalization form C, as the NFC normalizer of Hugging Face tokenizers makes it (Unicode
// 9: see unicode_ranges.h).
#pragma once

#include <string>
#include <string_view>

namespace penstock {

// `text` must be valid UTF-8. Linear but for the sorting of long runs of combining marks, which is
// O(n log n).
std::string NormalizeNfc(std::string_view text);

}  // namespace penstock
