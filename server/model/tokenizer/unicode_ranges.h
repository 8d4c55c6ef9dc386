// Where the Unicode versions of our libraries and of Hugging Face tokenizers differ. A tokenizer
// must cut a text exactly where the one did that its model was trained with, so the older and newer
// tables of that library are part of the format. Taken from tokenizers 0.23.3, code point by code
// point; tests/parity/tokenizer_test.py holds all of them:
//   \p{L}, \p{N}         Unicode 16 (Oniguruma 6.9.10)    PCRE2 10.42 has Unicode 14
//   char::is_numeric     Unicode 17 (Rust)
//   \w of added tokens   Unicode 16 (the regex crate)
//   NFC                  Unicode 9 (unicode-normalization-alignments)    utf8proc 2.8 has Unicode
//   15
#pragma once

#include <span>
#include <string>

namespace penstock {

struct CodePointRange {
  char32_t first, last;
};

// What the class has in tokenizers and not in PCRE2 10.42. Sorted.
std::span<const CodePointRange> AddedLetters();   // \p{L}
std::span<const CodePointRange> AddedNumbers();   // \p{N}
std::span<const CodePointRange> AddedNumerics();  // char::is_numeric, over \p{N}
std::span<const CodePointRange>
AddedWordCharacters();  // \w, over Alphabetic, M, Nd, Pc and the joiners

// Code points that reorder or compose in Unicode 15 and were unassigned in Unicode 9. Sorted.
std::span<const CodePointRange> NormalizesSinceUnicode9();

bool Contains(std::span<const CodePointRange> ranges, char32_t code_point);

// White_Space of the Unicode character database: \s of Oniguruma and of the regex crate.
bool IsWhiteSpace(char32_t code_point);

// The same for a PCRE2 character class: "\x{9}-\x{d}\x{20}…". (PCRE2's own \s has U+180E besides.)
extern const char kWhiteSpaceClass[];

// `ranges` for a PCRE2 character class.
std::string ClassOf(std::span<const CodePointRange> ranges);

}  // namespace penstock
