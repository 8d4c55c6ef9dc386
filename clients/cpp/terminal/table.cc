#include "clients/cpp/terminal/table.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cpp/terminal/text.h"

namespace penstock::client {
namespace {

constexpr int kGap = 2;  // columns between columns

}  // namespace

void Table::AddRow(std::vector<std::string> cells) {
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::ToString() const {
  std::vector<int> widths;
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    int width = DisplayWidth(columns_[i].title);
    for (const auto& row : rows_) width = std::max(width, DisplayWidth(row[i]));
    widths.push_back(width);
  }
  std::string text;
  const auto append_line = [&](const auto& cell) {
    std::string line;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      if (i > 0) line.append(kGap, ' ');
      line += columns_[i].align == Align::kLeft ? PadRight(cell(i), widths[i])
                                                : PadLeft(cell(i), widths[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  };
  append_line([&](std::size_t i) { return columns_[i].title; });
  append_line([&](std::size_t i) {
    std::string rule;
    for (int column = 0; column < widths[i]; ++column) rule += "─";
    return rule;
  });
  for (const auto& row : rows_) append_line([&](std::size_t i) { return row[i]; });
  return text;
}

std::string Fixed(double value, int decimals) {
  if (!std::isfinite(value)) return "–";
  return absl::StrFormat("%.*f", decimals, value);
}

std::string Grouped(long long value) {
  const std::string plain = absl::StrCat(value);
  const std::size_t sign = plain.front() == '-' ? 1 : 0;
  std::string digits;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    if (i > sign && (plain.size() - i) % 3 == 0) digits += ',';
    digits += plain[i];
  }
  return digits;
}

}  // namespace penstock::client
