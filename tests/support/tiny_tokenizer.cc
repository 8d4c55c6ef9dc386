#include "tests/support/tiny_tokenizer.h"

#include "nlohmann/json.hpp"
#include "server/base/check.h"
#include "server/model/tokenizer/byte_alphabet.h"

namespace penstock {

std::string TinyTokenizerJson() {
  nlohmann::json vocabulary = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte) {
    const char raw = static_cast<char>(byte);
    vocabulary[LettersOfBytes(std::string_view(&raw, 1))] = byte;
  }
  nlohmann::json added = nlohmann::json::array();
  int id = 256;
  for (const char* content : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) {
    added.push_back({{"id", id++},
                     {"content", content},
                     {"special", true},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"single_word", false}});
  }
  const nlohmann::json file = {
      {"version", "1.0"},
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "ByteLevel"},
        {"add_prefix_space", false},
        {"trim_offsets", true},
        {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder",
       {{"type", "ByteLevel"},
        {"add_prefix_space", true},
        {"trim_offsets", true},
        {"use_regex", true}}},
      {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", nlohmann::json::array()}}}};
  return file.dump();
}

std::shared_ptr<const Tokenizer> TinyTokenizer() {
  auto tokenizer = Tokenizer::Parse(TinyTokenizerJson());
  PENSTOCK_CHECK(tokenizer.ok()) << tokenizer.status().message();
  return *tokenizer;
}

}  // namespace penstock
