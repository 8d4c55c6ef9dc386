#include "server/model/tokenizer/byte_alphabet.h"

#include <array>

#include "server/model/tokenizer/utf8.h"

namespace penstock {
namespace {

constexpr char32_t kFirstSubstitute = 0x100;
constexpr size_t kLetters = 0x144;  // one past the last of the 68 substitutes

constexpr bool StandsForItself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<char32_t, 256> letters{};    // [byte]
  std::array<int16_t, kLetters> bytes{};  // [letter]; -1: not in the alphabet
};

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (int16_t& byte : alphabet.bytes) byte = -1;
  char32_t substitute = kFirstSubstitute;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t letter = StandsForItself(byte) ? static_cast<char32_t>(byte) : substitute++;
    alphabet.letters[byte] = letter;
    alphabet.bytes[letter] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

char32_t ByteLetter(uint8_t byte) { return kAlphabet.letters[byte]; }

std::optional<std::string> BytesOfLetters(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = CodePointAt(text, at);
    if (c.value >= kLetters || kAlphabet.bytes[c.value] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kAlphabet.bytes[c.value]));
    at += c.size;
  }
  return bytes;
}

std::string LettersOfBytes(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const char c : bytes) AppendUtf8(ByteLetter(static_cast<uint8_t>(c)), &text);
  return text;
}

}  // namespace penstock
