// Any bytes as config.json, and as generation_config.json beside it.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "server/model/checkpoint/generation_config.h"
#include "server/model/checkpoint/model_config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(bytes), size);
  const auto config = penstock::ParseModelConfig(text, "config.json");
  if (config.ok() && (config->hidden_size <= 0 || config->top_k > config->experts))
    __builtin_trap();
  penstock::ModelConfig model;
  model.vocab_size = 1000;
  const auto generation = penstock::ParseGenerationConfig(text, "generation_config.json", model);
  if (!generation.ok()) return 0;
  for (const std::int64_t id : generation->eos_token_ids) {
    if (id < 0 || id >= model.vocab_size) __builtin_trap();
  }
  return 0;
}
