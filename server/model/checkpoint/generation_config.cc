#include "server/model/checkpoint/generation_config.h"

#include "server/base/status_macros.h"
#include "server/model/checkpoint/json_fields.h"

namespace penstock {
namespace {

// Settings that would change the text and that are not supported. At the value given, or empty,
// they do nothing.
struct Unsupported {
  const char* key;
  double neutral;
};
constexpr Unsupported kUnsupported[] = {
    {"num_beams", 1},
    {"num_beam_groups", 1},
    {"penalty_alpha", 0},
    {"typical_p", 1},
    {"epsilon_cutoff", 0},
    {"eta_cutoff", 0},
    {"guidance_scale", 1},
    {"no_repeat_ngram_size", 0},
    {"encoder_no_repeat_ngram_size", 0},
    {"encoder_repetition_penalty", 1},
    {"diversity_penalty", 0},
    {"bad_words_ids", 0},
    {"suppress_tokens", 0},
    {"begin_suppress_tokens", 0},
    {"sequence_bias", 0},
    {"forced_bos_token_id", -1},
    {"forced_eos_token_id", -1},
    {"exponential_decay_length_penalty", 0},
    {"watermarking_config", 0},
    {"stop_strings", 0},
};

}  // namespace

absl::StatusOr<GenerationConfig> ParseGenerationConfig(std::string_view json, std::string_view file,
                                                       const ModelConfig& model) {
  PENSTOCK_ASSIGN_OR_RETURN(const nlohmann::json object, ParseJsonObject(json, file));
  JsonFields fields{std::string(file), object};
  GenerationConfig config = DefaultGenerationConfig(model);
  const std::int64_t last_token = model.vocab_size - 1;
  if (fields.Has("eos_token_id")) {
    config.eos_token_ids = fields.Integers("eos_token_id", 0, last_token);
  }
  if (fields.Has("bos_token_id")) {
    config.bos_token_id = fields.OptionalInteger("bos_token_id", 0, last_token);
  }
  if (fields.Has("pad_token_id")) {
    config.pad_token_id = fields.OptionalInteger("pad_token_id", 0, last_token);
  }
  config.do_sample = fields.OptionalBool("do_sample");
  config.temperature = fields.OptionalNumber("temperature", 0, 100, /*min_allowed=*/true);
  config.top_p = fields.OptionalNumber("top_p", 0, 1);
  config.min_p = fields.OptionalNumber("min_p", 0, 1, /*min_allowed=*/true);
  config.top_k = fields.OptionalInteger("top_k", 0, INT32_MAX);
  config.repetition_penalty = fields.OptionalNumber("repetition_penalty", 0, 100);
  for (const Unsupported& setting : kUnsupported) {
    const nlohmann::json& value = fields.At(setting.key);
    const bool neutral = value.is_null() || (value.is_structured() && value.empty()) ||
                         (value.is_number() && value.get<double>() == setting.neutral);
    if (!neutral) fields.Violate(setting.key, value, "none: not supported");
  }
  PENSTOCK_RETURN_IF_ERROR(fields.status());
  return config;
}

GenerationConfig DefaultGenerationConfig(const ModelConfig& model) {
  GenerationConfig config;
  config.eos_token_ids = model.eos_token_ids;
  config.bos_token_id = model.bos_token_id;
  config.pad_token_id = model.pad_token_id;
  return config;
}

}  // namespace penstock
