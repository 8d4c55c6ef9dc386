#include "server/config/values.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace penstock {
namespace {

// Largest first.
constexpr std::pair<std::string_view, int> kUnits[] = {
    {"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}, {"B", 0}};

}  // namespace

std::optional<std::int64_t> ParseSize(std::string_view text) {
  int shift = 0;
  for (const auto& [unit, exponent] : kUnits) {
    if (!text.ends_with(unit)) continue;
    text.remove_suffix(unit.size());
    shift = exponent;
    break;
  }
  std::int64_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error != std::errc() || end != text.data() + text.size() || count < 0) return std::nullopt;
  if (count > (std::numeric_limits<std::int64_t>::max() >> shift)) return std::nullopt;
  return count << shift;
}

std::string FormatSize(std::int64_t bytes) {
  for (const auto& [unit, exponent] : kUnits) {
    const std::int64_t size = std::int64_t{1} << exponent;
    if (bytes != 0 && bytes % size == 0) return absl::StrCat(bytes / size, std::string(unit));
  }
  return absl::StrCat(bytes, "B");
}

std::optional<absl::Duration> ParseDuration(std::string_view text) {
  absl::Duration duration;
  if (!absl::ParseDuration(absl::string_view(text.data(), text.size()), &duration)) {
    return std::nullopt;
  }
  if (duration == absl::InfiniteDuration() || duration == -absl::InfiniteDuration()) {
    return std::nullopt;
  }
  return duration;
}

std::optional<double> ParseNumber(std::string_view text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (!std::isfinite(number)) return std::nullopt;
  return number;
}

std::string FormatNumber(double number) {
  char buffer[32];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof(buffer), number);
  return std::string(buffer, end);
}

std::optional<double> ParseRatio(std::string_view text) {
  const bool percentage = text.ends_with('%');
  if (percentage) text.remove_suffix(1);
  std::optional<double> number = ParseNumber(text);
  if (number && percentage) *number /= 100;
  return number;
}

std::optional<int> ParseExposure(std::string_view text, int size) {
  if (text.ends_with('%')) {
    const auto ratio = ParseRatio(text);
    if (!ratio || *ratio < 0 || *ratio > 1) return std::nullopt;
    return static_cast<int>(std::lround(*ratio * size));
  }
  int buckets = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), buckets);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  if (buckets < 0 || buckets > size) return std::nullopt;
  return buckets;
}

std::optional<absl::Time> ParseTimestamp(std::string_view text) {
  absl::Time time;
  std::string error;
  if (!absl::ParseTime(absl::RFC3339_full, absl::string_view(text.data(), text.size()), &time,
                       &error)) {
    return std::nullopt;
  }
  // absl reads "infinite-future" too.
  if (time == absl::InfiniteFuture() || time == absl::InfinitePast()) return std::nullopt;
  return time;
}

}  // namespace penstock
