#include "clients/cpp/cli/metrics_page.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace penstock::client {
namespace {

// Reads a line from its front.
class LineReader {
 public:
  explicit LineReader(std::string_view line) : rest_(line) {}

  std::string_view Name() {
    std::size_t size = 0;
    while (size < rest_.size() && IsNameCharacter(rest_[size])) ++size;
    const std::string_view name = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return name;
  }

  bool Take(char character) {
    SkipSpaces();
    if (rest_.empty() || rest_.front() != character) return false;
    rest_.remove_prefix(1);
    return true;
  }

  // What stands between quotes, with \\, \" and \n undone; nullopt without a closing quote.
  std::optional<std::string> Quoted() {
    if (!Take('"')) return std::nullopt;
    std::string value;
    while (!rest_.empty()) {
      const char character = rest_.front();
      rest_.remove_prefix(1);
      if (character == '"') return value;
      if (character == '\\' && !rest_.empty()) {
        value += rest_.front() == 'n' ? '\n' : rest_.front();
        rest_.remove_prefix(1);
      } else {
        value += character;
      }
    }
    return std::nullopt;
  }

  // The value; a timestamp may follow.
  std::optional<double> Value() {
    SkipSpaces();
    const std::string_view word = rest_.substr(0, rest_.find_first_of(" \t\r"));
    double value = 0;
    if (!absl::SimpleAtod({word.data(), word.size()}, &value)) return std::nullopt;
    return value;
  }

  void SkipSpaces() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\t'))
      rest_.remove_prefix(1);
  }

 private:
  static bool IsNameCharacter(char character) {
    return std::isalnum(static_cast<unsigned char>(character)) != 0 || character == '_' ||
           character == ':';
  }

  std::string_view rest_;
};

std::optional<Labels> ReadLabels(LineReader& reader) {
  Labels labels;
  if (!reader.Take('{')) return labels;
  while (!reader.Take('}')) {
    const std::string name(reader.Name());
    if (name.empty() || !reader.Take('=')) return std::nullopt;
    std::optional<std::string> value = reader.Quoted();
    if (!value) return std::nullopt;
    labels[name] = *std::move(value);
    reader.Take(',');
    reader.SkipSpaces();
  }
  return labels;
}

}  // namespace

absl::StatusOr<MetricsPage> MetricsPage::Parse(std::string_view text) {
  MetricsPage page;
  int number = 0;
  for (const absl::string_view line :
       absl::StrSplit(absl::string_view(text.data(), text.size()), '\n')) {
    ++number;
    LineReader reader({line.data(), line.size()});
    if (line.empty() || line == "\r" || reader.Take('#')) continue;
    const std::string name(reader.Name());
    const std::optional<Labels> labels = ReadLabels(reader);
    const std::optional<double> value = labels ? reader.Value() : std::nullopt;
    if (name.empty() || !value) {
      return absl::InvalidArgumentError(absl::StrCat("metrics, line ", number, ": got ",
                                                     line.substr(0, 80),
                                                     ", want NAME{LABEL=\"VALUE\",…} NUMBER"));
    }
    page.series_[name].push_back({*labels, *value});
  }
  return page;
}

std::vector<double> MetricsPage::Values(const std::string& name, const Labels& labels) const {
  std::vector<double> values;
  const auto found = series_.find(name);
  if (found == series_.end()) return values;
  for (const Series& series : found->second) {
    const bool matches = std::all_of(labels.begin(), labels.end(), [&](const auto& label) {
      const auto own = series.labels.find(label.first);
      return own != series.labels.end() && own->second == label.second;
    });
    if (matches && !std::isnan(series.value)) values.push_back(series.value);
  }
  return values;
}

std::optional<double> MetricsPage::Sum(const std::string& name, const Labels& labels) const {
  const std::vector<double> values = Values(name, labels);
  if (values.empty()) return std::nullopt;
  return std::accumulate(values.begin(), values.end(), 0.0);
}

std::optional<double> MetricsPage::Mean(const std::string& name, const Labels& labels) const {
  const std::vector<double> values = Values(name, labels);
  if (values.empty()) return std::nullopt;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

std::vector<std::string> MetricsPage::LabelValues(const std::string& name,
                                                  const std::string& label) const {
  std::set<std::string> values;
  if (const auto found = series_.find(name); found != series_.end()) {
    for (const Series& series : found->second) {
      if (const auto own = series.labels.find(label); own != series.labels.end()) {
        values.insert(own->second);
      }
    }
  }
  return {values.begin(), values.end()};
}

}  // namespace penstock::client
