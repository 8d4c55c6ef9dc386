// The byte-level alphabet of GPT-2: every byte is written as one printable character, so that a
// vocabulary of byte strings can stand in a JSON file. Bytes 0x21-0x7E, 0xA1-0xAC and 0xAE-0xFF
// stand for themselves as code points; the other 68, in order, are U+0100, U+0101, … (Radford et
// al. 2019, encoder.py, bytes_to_unicode).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock {

// The code point that stands for `byte`.
char32_t ByteLetter(uint8_t byte);

// The bytes that `text` (valid UTF-8) spells; nullopt when one of its characters is not in the
// alphabet.
std::optional<std::string> BytesOfLetters(std::string_view text);

// `bytes` in the alphabet.
std::string LettersOfBytes(std::string_view bytes);

}  // namespace penstock
