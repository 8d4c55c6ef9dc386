#include "clients/cpp/terminal/text.h"

#include <utf8proc.h>

#include <algorithm>

#include "absl/strings/str_format.h"

namespace penstock::client {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";

struct Character {
  std::string_view bytes;
  utf8proc_int32_t code_point;  // −1: not UTF-8
  int width;
};

Character First(std::string_view text) {
  utf8proc_int32_t code_point = -1;
  const utf8proc_ssize_t size =
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                       static_cast<utf8proc_ssize_t>(text.size()), &code_point);
  if (size <= 0) return {text.substr(0, 1), -1, 1};
  return {text.substr(0, static_cast<std::size_t>(size)), code_point,
          std::max(0, utf8proc_charwidth(code_point))};
}

bool IsControl(utf8proc_int32_t code_point) {
  return code_point < 0x20 || (code_point >= 0x7f && code_point < 0xa0);
}

// One line without line feeds.
void WrapLine(std::string_view line, int width, std::vector<std::string>& lines) {
  std::string current;
  int current_width = 0;
  std::size_t break_at = std::string::npos;  // byte after the last space of `current`
  while (!line.empty()) {
    const Character character = First(line);
    line.remove_prefix(character.bytes.size());
    if (current_width + character.width > width) {
      if (character.bytes == " ") {  // the break itself takes no room
        lines.push_back(current);
        current.clear();
        current_width = 0;
        break_at = std::string::npos;
        continue;
      }
      const bool has_break = break_at != std::string::npos && break_at < current.size();
      const std::size_t cut = has_break ? break_at : current.size();
      lines.push_back(current.substr(0, cut));
      if (lines.back().size() > 1 && lines.back().back() == ' ') lines.back().pop_back();
      current.erase(0, cut);
      current_width = DisplayWidth(current);
      break_at = std::string::npos;
    }
    current += character.bytes;
    current_width += character.width;
    if (character.bytes == " ") break_at = current.size();
  }
  lines.push_back(current);
}

}  // namespace

int DisplayWidth(std::string_view text) {
  int width = 0;
  while (!text.empty()) {
    const Character character = First(text);
    width += character.width;
    text.remove_prefix(character.bytes.size());
  }
  return width;
}

std::string Printable(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const Character character = First(text);
    text.remove_prefix(character.bytes.size());
    if (character.bytes == "\t") {
      result += "  ";
    } else if (character.bytes == "\n") {
      result += '\n';
    } else if (character.bytes == "\r") {
      continue;
    } else if (character.code_point < 0 || IsControl(character.code_point)) {
      result += kReplacement;
    } else {
      result += character.bytes;
    }
  }
  return result;
}

std::string Escaped(std::string_view text) {
  std::string result;
  while (!text.empty()) {
    const Character character = First(text);
    text.remove_prefix(character.bytes.size());
    if (character.bytes == "\n") {
      result += "\\n";
    } else if (character.bytes == "\t") {
      result += "\\t";
    } else if (character.bytes == "\r") {
      result += "\\r";
    } else if (character.bytes == "\\") {
      result += "\\\\";
    } else if (character.code_point < 0 || IsControl(character.code_point)) {
      for (const char byte : character.bytes) {
        result += absl::StrFormat("\\x%02x", static_cast<unsigned char>(byte));
      }
    } else {
      result += character.bytes;
    }
  }
  return result;
}

std::vector<std::string> Wrap(std::string_view text, int width) {
  std::vector<std::string> lines;
  while (true) {
    const std::size_t end = text.find('\n');
    WrapLine(text.substr(0, end), std::max(2, width), lines);
    if (end == std::string_view::npos) return lines;
    text.remove_prefix(end + 1);
  }
}

std::string PadRight(std::string_view text, int width) {
  return std::string(text) + std::string(std::max(0, width - DisplayWidth(text)), ' ');
}

std::string PadLeft(std::string_view text, int width) {
  return std::string(std::max(0, width - DisplayWidth(text)), ' ') + std::string(text);
}

std::string Shortened(std::string_view text, int width) {
  if (DisplayWidth(text) <= width) return std::string(text);
  std::string result;
  int used = 0;
  while (!text.empty()) {
    const Character character = First(text);
    if (used + character.width > width - 1) break;
    result += character.bytes;
    used += character.width;
    text.remove_prefix(character.bytes.size());
  }
  return result + "…";
}

}  // namespace penstock::client
