// Decoding of one stream, token by token.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "server/model/tokenizer/tokenizer.h"
#include "server/model/tokenizer/utf8.h"

namespace penstock {

// What Push and Finish return, joined, is Decode of all the tokens at once: a character whose bytes
// are spread over tokens is held back until it is whole, so no replacement character appears in the
// middle of a stream unless the tokens really spell none. One stream, one thread.
class IncrementalDecoder {
 public:
  IncrementalDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special)
      : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}

  // The text that `id` completes, valid UTF-8, often empty. Unknown ids, and special ones if so
  // asked, add nothing.
  std::string Push(int32_t id) {
    std::string text;
    if (!skip_special_ || !tokenizer_->IsSpecial(id))
      replacer_.Append(tokenizer_->TokenBytes(id), &text);
    return text;
  }

  // The end of the stream: U+FFFD for an unfinished character, else empty. Ready for a new stream
  // afterwards.
  std::string Finish() {
    std::string text;
    replacer_.Finish(&text);
    return text;
  }

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  bool skip_special_;
  Utf8Replacer replacer_;
};

}  // namespace penstock
