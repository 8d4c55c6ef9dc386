// Sizes, durations and ratios as the configuration writes them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"

namespace penstock {

// Bytes: a non-negative integer and an optional unit B, KiB, MiB, GiB or TiB ("4GiB", "512").
// nullopt: anything else, or more than int64 holds.
std::optional<std::int64_t> ParseSize(std::string_view text);
// With the largest unit that divides it: "4GiB", "1000B".
std::string FormatSize(std::int64_t bytes);

// A finite duration with units: "30s", "1h30m", "1.5ms", also "0". nullopt: anything else, a bare
// number too. The way back is absl::FormatDuration.
std::optional<absl::Duration> ParseDuration(std::string_view text);

// A finite number: "0.2".
std::optional<double> ParseNumber(std::string_view text);
// The shortest text that reads back as the same number.
std::string FormatNumber(double number);

// A finite number ("0.2") or percentage ("20%"). The range is for the caller to check.
std::optional<double> ParseRatio(std::string_view text);

// How many of `size` buckets: their number ("1000"), at most `size`, or a percentage ("20%"),
// rounded to the nearest. nullopt: anything else.
std::optional<int> ParseExposure(std::string_view text, int size);

// RFC 3339: "2026-12-01T00:00:00Z". nullopt: anything else.
std::optional<absl::Time> ParseTimestamp(std::string_view text);

}  // namespace penstock
