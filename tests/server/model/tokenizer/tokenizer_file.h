// A small tokenizer.json to start tests from.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "server/model/tokenizer/byte_alphabet.h"

namespace penstock {

// Byte-level BPE in the way of GPT-2: token id = byte value for 0 to 255, then one token for each
// merge, from 256 on.
inline nlohmann::json TokenizerFile(
    const std::vector<std::pair<std::string, std::string>>& merges = {}) {
  nlohmann::json vocabulary = nlohmann::json::object(), pairs = nlohmann::json::array();
  for (int byte = 0; byte < 256; ++byte)
    vocabulary[LettersOfBytes(std::string(1, static_cast<char>(byte)))] = byte;
  for (const auto& [left, right] : merges) {
    const auto next = static_cast<int>(vocabulary.size());
    vocabulary.emplace(left + right, next);
    pairs.push_back({left, right});
  }
  return {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", nlohmann::json::array()},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", pairs}}}};
}

// An entry of added_tokens without flags.
inline nlohmann::json AddedTokenEntry(int id, const std::string& content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", false}};
}

}  // namespace penstock
