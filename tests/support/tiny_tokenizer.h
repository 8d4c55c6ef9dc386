// A byte-level tokenizer without merges: id = byte, and behind them <|endoftext|> 256, <|im_start|>
// 257, <|im_end|> 258.
#pragma once

#include <memory>
#include <string>

#include "server/model/tokenizer/tokenizer.h"

namespace penstock {

// Its tokenizer.json.
std::string TinyTokenizerJson();

std::shared_ptr<const Tokenizer> TinyTokenizer();

}  // namespace penstock
