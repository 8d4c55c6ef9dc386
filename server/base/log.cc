#include "server/base/log.h"

#include <cstdio>
#include <mutex>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"

namespace penstock {
namespace {

struct State {
  std::mutex mutex;
  LogFormat format = LogFormat::kText;
  std::function<void(std::string_view)> sink;
};

State& GetState() {
  static State* const state = new State;
  return *state;
}

const char* Name(LogLevel level) {
  switch (level) {
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "";
}

bool IsEmpty(const LogValue& value) {
  const auto* text = std::get_if<std::string>(&value);
  return text != nullptr && text->empty();
}

std::string TextValue(const LogValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) {
    const bool plain = !text->empty() && text->find_first_of(" \"=\\\n\r\t") == std::string::npos;
    const std::string escaped = absl::Utf8SafeCEscape(*text);
    return plain ? escaped : absl::StrCat("\"", escaped, "\"");
  }
  if (const auto* number = std::get_if<std::int64_t>(&value)) return absl::StrCat(*number);
  if (const auto* number = std::get_if<double>(&value)) return absl::StrCat(*number);
  return std::get<bool>(value) ? "true" : "false";
}

std::string FormatText(const std::string& time, LogLevel level, std::string_view message,
                       std::initializer_list<LogField> fields) {
  std::string line =
      absl::StrCat(time, " ", Name(level), " ",
                   absl::Utf8SafeCEscape(absl::string_view(message.data(), message.size())));
  for (const auto& [key, value] : fields) {
    if (IsEmpty(value)) continue;
    absl::StrAppend(&line, " ", std::string(key), "=", TextValue(value));
  }
  return line;
}

std::string FormatJson(const std::string& time, LogLevel level, std::string_view message,
                       std::initializer_list<LogField> fields) {
  nlohmann::ordered_json line = {{"time", time}, {"level", Name(level)}, {"message", message}};
  for (const auto& [key, value] : fields) {
    if (IsEmpty(value)) continue;
    std::visit([&, key = std::string(key)](const auto& v) { line[key] = v; }, value);
  }
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace

void Log(LogLevel level, std::string_view message, std::initializer_list<LogField> fields) {
  const std::string time =
      absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  State& state = GetState();
  std::lock_guard<std::mutex> lock(state.mutex);
  std::string line = state.format == LogFormat::kText ? FormatText(time, level, message, fields)
                                                      : FormatJson(time, level, message, fields);
  if (state.sink) {
    state.sink(line);
  } else {
    // One write a line: formatted output to an unbuffered stream comes in pieces, between which
    // other processes write, and readers see halves.
    line += '\n';
    std::fwrite(line.data(), 1, line.size(), stderr);
  }
}

void SetLogFormat(LogFormat format) {
  std::lock_guard<std::mutex> lock(GetState().mutex);
  GetState().format = format;
}

void SetLogSink(std::function<void(std::string_view)> sink) {
  std::lock_guard<std::mutex> lock(GetState().mutex);
  GetState().sink = std::move(sink);
}

}  // namespace penstock
