#include "server/config/violations.h"

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace penstock {
namespace {

constexpr std::size_t kMaxLines = 100;
constexpr std::size_t kMaxQuoted = 100;

}  // namespace

void Violations::Add(std::string_view path, std::string_view got, std::string_view want) {
  ++count_;
  if (lines_.size() == kMaxLines) return;
  paths_.emplace_back(path);
  lines_.push_back(std::string(path) + ": got " + std::string(got) + ", want " + std::string(want));
}

bool Violations::Cover(std::string_view path) const {
  return std::any_of(paths_.begin(), paths_.end(), [&](const std::string& reported) {
    return path.starts_with(reported) &&
           (path.size() == reported.size() || path[reported.size()] == '.' ||
            path[reported.size()] == '[');
  });
}

std::string Violations::Text() const {
  std::string text = absl::StrJoin(lines_, "\n");
  if (count_ > lines_.size()) absl::StrAppend(&text, "\nand ", count_ - lines_.size(), " more");
  return text;
}

absl::Status Violations::ToStatus() const {
  return empty() ? absl::OkStatus() : absl::InvalidArgumentError(Text());
}

std::string QuoteValue(std::string_view text) {
  std::string_view shown = text.substr(0, kMaxQuoted);
  // Not through the middle of a UTF-8 sequence.
  while (shown.size() < text.size() && !shown.empty() && (text[shown.size()] & 0xC0) == 0x80) {
    shown.remove_suffix(1);
  }
  return absl::StrCat("'", absl::Utf8SafeCEscape(absl::string_view(shown.data(), shown.size())),
                      shown.size() < text.size() ? "…'" : "'");
}

}  // namespace penstock
