#include "server/model/tokenizer/utf8.h"

#include <cstring>

namespace penstock {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// What may follow a lead byte (Unicode 15.0, table 3-7). size 0: the byte leads nothing.
struct Lead {
  size_t size;
  unsigned char low, high;  // range of the second byte
};

Lead LeadOf(unsigned char byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

CodePoint CodePointAt(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xE0) return {(lead & 0x1Fu) << 6 | (byte(1) & 0x3Fu), 2};
  if (lead < 0xF0) return {(lead & 0xFu) << 12 | (byte(1) & 0x3Fu) << 6 | (byte(2) & 0x3Fu), 3};
  return {
      (lead & 0x7u) << 18 | (byte(1) & 0x3Fu) << 12 | (byte(2) & 0x3Fu) << 6 | (byte(3) & 0x3Fu),
      4};
}

CodePoint CodePointBefore(std::string_view text, size_t end) {
  size_t start = end - 1;
  while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
  return CodePointAt(text, start);
}

void AppendUtf8(char32_t c, std::string* out) {
  const auto push = [out](uint32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    push(c);
  } else if (c < 0x800) {
    push(0xC0 | c >> 6);
    push(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    push(0xE0 | c >> 12);
    push(0x80 | (c >> 6 & 0x3F));
    push(0x80 | (c & 0x3F));
  } else {
    push(0xF0 | c >> 18);
    push(0x80 | (c >> 12 & 0x3F));
    push(0x80 | (c >> 6 & 0x3F));
    push(0x80 | (c & 0x3F));
  }
}

std::optional<size_t> FindInvalidUtf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Lead lead = LeadOf(static_cast<unsigned char>(text[at]));
    if (lead.size == 0 || at + lead.size > text.size()) return at;
    for (size_t i = 1; i < lead.size; ++i) {
      const auto byte = static_cast<unsigned char>(text[at + i]);
      const unsigned char low = i == 1 ? lead.low : 0x80, high = i == 1 ? lead.high : 0xBF;
      if (byte < low || byte > high) return at;
    }
    at += lead.size;
  }
  return std::nullopt;
}

void Utf8Replacer::Start(unsigned char byte, std::string* out) {
  const Lead lead = LeadOf(byte);
  if (lead.size == 1) {
    out->push_back(static_cast<char>(byte));
  } else if (lead.size == 0) {
    out->append(kReplacement);
  } else {
    held_[0] = static_cast<char>(byte);
    held_size_ = 1;
    wanted_size_ = lead.size;
    low_ = lead.low;
    high_ = lead.high;
  }
}

void Utf8Replacer::Append(std::string_view bytes, std::string* out) {
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (held_size_ == 0) {
      Start(byte, out);
    } else if (byte < low_ || byte > high_) {
      out->append(kReplacement);
      held_size_ = 0;
      Start(byte, out);
    } else {
      held_[held_size_++] = c;
      low_ = 0x80;
      high_ = 0xBF;
      if (held_size_ == wanted_size_) {
        out->append(held_.data(), held_size_);
        held_size_ = 0;
      }
    }
  }
}

void Utf8Replacer::Finish(std::string* out) {
  if (held_size_ > 0) out->append(kReplacement);
  held_size_ = 0;
}

}  // namespace penstock
