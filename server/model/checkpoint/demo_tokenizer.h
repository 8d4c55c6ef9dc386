// The tokenizer of a GGUF file, in Hugging Face's files.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "server/model/checkpoint/gguf.h"
#include "server/model/checkpoint/model_config.h"

namespace penstock {

// The texts of the files.
struct DemoTokenizer {
  std::string tokenizer;          // tokenizer.json
  std::string tokenizer_config;   // tokenizer_config.json, with the chat template
  std::string generation_config;  // generation_config.json
};

// Reads vocabulary, merges, special tokens and chat template. Supported is the byte-level BPE that
// llama.cpp calls "gpt2" with the pre-tokenizer "smollm": single digits are split off, then GPT-2's
// pattern; no normalization. Anything else, and what does not fit together (a duplicate token, a
// merge of unknown tokens, a vocabulary of another size than the model's), is INVALID_ARGUMENT
// naming the key.
absl::StatusOr<DemoTokenizer> MakeDemoTokenizer(const GgufFile& gguf, const ModelConfig& model);

}  // namespace penstock
