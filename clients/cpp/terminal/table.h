// Text tables: a header line, a rule, rows; columns as wide as their widest cell.
#pragma once

#include <string>
#include <vector>

namespace penstock::client {

enum class Align { kLeft, kRight };

class Table {
 public:
  struct Column {
    std::string title;
    Align align = Align::kRight;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // Missing cells are empty, surplus ones are dropped.
  void AddRow(std::vector<std::string> cells);
  // Every line ends with a line feed, and has no trailing spaces.
  std::string ToString() const;

 private:
  const std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// `value` with `decimals` places; "–" for what isn't a number.
std::string Fixed(double value, int decimals);
// With thousands separators: 1,234,567.
std::string Grouped(long long value);

}  // namespace penstock::client
