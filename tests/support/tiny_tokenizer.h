// A byte-level tokenizer without merges: id = byte, and behind them <|endoftext|> 256, <|im_start|> 257, <|im_end|> 258.
#pragma once

#include <memory>

#include "server/model/tokenizer/tokenizer.h"

namespace penstock {

std::shared_ptr<const Tokenizer> TinyTokenizer();

}  // namespace penstock
