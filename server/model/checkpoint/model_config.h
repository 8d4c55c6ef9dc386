// config.json of a Qwen2MoeForCausalLM checkpoint.
// Names and defaults: transformers, models/qwen2_moe/configuration_qwen2_moe.py.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "routers/package/safetensors.h"

namespace penstock {

struct ModelConfig {
  std::int64_t hidden_size = 0;  // d
  std::int64_t layers = 0;
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;  // divides heads
  std::int64_t head_dim = 0;  // even; heads · head_dim may differ from d
  std::int64_t vocab_size = 0;
  std::int64_t max_position_embeddings = 0;  // longest context the model was made for, in tokens

  std::int64_t experts = 0;  // E
  std::int64_t top_k = 0;    // k, 1 to E
  bool norm_topk_prob = false;
  std::int64_t moe_intermediate_size = 0;     // f, of one routed expert
  std::int64_t shared_intermediate_size = 0;  // of the shared expert
  std::int64_t dense_intermediate_size = 0;   // of a dense layer's MLP; 0 if there is none
  std::vector<bool> sparse;                   // [layers]: routed experts, or one dense MLP

  double rms_norm_eps = 0;
  double rope_theta = 0;
  bool qkv_bias = true;
  bool tie_word_embeddings = false;  // the output head is the embedding
  std::optional<DType> dtype;        // as declared: F32, F16 or BF16

  std::vector<std::int64_t> eos_token_ids;  // may be empty
  std::optional<std::int64_t> bos_token_id, pad_token_id;

  // Indices into the model's layers, ascending.
  std::vector<std::int64_t> SparseLayers() const;
};

// Reads both spellings: `rope_theta` and `torch_dtype` (released files), `rope_parameters` and
// `dtype` (transformers 5). INVALID_ARGUMENT lists every violation, one "file: key: got X, want Y"
// a line: missing keys (nothing that shapes the model has a default here but qkv_bias true,
// head_dim d/heads, decoder_sparse_step 1, no mlp_only_layers, and false for norm_topk_prob and
// tie_word_embeddings), values out of bounds, contradictions, and by name what is not supported:
// other architectures and activations, RoPE scaling, sliding windows in use, quantized weights,
// code of its own.
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json, std::string_view file);

}  // namespace penstock
