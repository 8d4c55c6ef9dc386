// Text as a terminal shows it: UTF-8, of which some characters take two columns and some none.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace penstock::client {

// Columns that `text` takes; bytes that are no UTF-8 count as one each.
int DisplayWidth(std::string_view text);

// What can be printed without steering the terminal: control characters other than line feed become
// U+FFFD, tabs two spaces, carriage returns nothing, bytes that are no UTF-8 U+FFFD. Answers are
// untrusted text.
std::string Printable(std::string_view text);

// `text` on one line, as a C string shows it: line feeds as \n, other control characters as \xNN.
std::string Escaped(std::string_view text);

// `text` (printable) as lines of at most `width` ≥ 2 columns, broken at spaces where possible.
// Keeps line feeds; an empty text has one empty line.
std::vector<std::string> Wrap(std::string_view text, int width);

// `text` and spaces up to `width` columns; longer text stays.
std::string PadRight(std::string_view text, int width);
std::string PadLeft(std::string_view text, int width);

// At most `width` columns, the last one an ellipsis where something was cut off.
std::string Shortened(std::string_view text, int width);

}  // namespace penstock::client
