// Structured log lines on stderr: one line an event, `time level message key=value …`, or one JSON
// object.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace penstock {

enum class LogLevel { kInfo, kWarning, kError };
enum class LogFormat { kText, kJson };

using LogValue = std::variant<std::string, std::int64_t, double, bool>;
using LogField = std::pair<std::string_view, LogValue>;

// Writes one line. Thread-safe; lines never interleave. Newlines and control characters in values
// are escaped; fields with an empty text are left out.
void Log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields = {});

// The format of the lines that follow. Default: text.
void SetLogFormat(LogFormat format);

// Sends the finished lines (without newline) elsewhere; an empty function restores stderr. For
// tests.
void SetLogSink(std::function<void(std::string_view line)> sink);

}  // namespace penstock
