// generation_config.json: when to stop, and the sampling that the model's makers recommend.
// Names: transformers, generation/configuration_utils.py.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/checkpoint/model_config.h"

namespace penstock {

// What is not set is for the request, or else the server's own default, to say.
struct GenerationConfig {
  std::vector<std::int64_t> eos_token_ids;  // any of them ends the text; may be empty
  std::optional<std::int64_t> bos_token_id, pad_token_id;
  std::optional<bool> do_sample;             // false: greedy, whatever the fields below say
  std::optional<double> temperature;         // 0 to 100
  std::optional<double> top_p;               // above 0, to 1
  std::optional<double> min_p;               // 0 to 1
  std::optional<std::int64_t> top_k;         // 0: off
  std::optional<double> repetition_penalty;  // above 0, to 100
};

// INVALID_ARGUMENT lists every violation, one "file: key: got X, want Y" a line: values of the
// wrong kind or out of bounds, token ids beyond the vocabulary, and by name what is not supported
// (beams, banned and forced tokens, …). Token ids that the file leaves out are those of
// config.json.
absl::StatusOr<GenerationConfig> ParseGenerationConfig(std::string_view json, std::string_view file,
                                                       const ModelConfig& model);

// For a checkpoint without the file: the token ids of config.json, nothing else.
GenerationConfig DefaultGenerationConfig(const ModelConfig& model);

}  // namespace penstock
