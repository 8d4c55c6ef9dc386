// A small, valid, seeded Qwen2-MoE checkpoint in memory: to be written as it is, or damaged first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "routers/package/safetensors.h"
#include "server/model/checkpoint/model_tensors.h"

namespace penstock {

// Small and uneven, so that a mixed-up extent shows.
struct TinyCheckpointOptions {
  std::uint64_t seed = 1;
  std::int64_t hidden_size = 32;
  std::int64_t layers = 3;
  std::int64_t heads = 4, kv_heads = 2;
  std::int64_t head_dim = 8;
  std::int64_t vocab_size = 96;
  std::int64_t max_position_embeddings = 256;
  std::int64_t experts = 6, top_k = 2;
  std::int64_t moe_intermediate_size = 12, shared_intermediate_size = 20,
               dense_intermediate_size = 40;
  bool norm_topk_prob = false;
  bool qkv_bias = true;
  bool tie_word_embeddings = false;
  std::vector<std::int64_t> mlp_only_layers = {};
  std::int64_t decoder_sparse_step = 1;
  double rms_norm_eps = 1e-6, rope_theta = 10000;
  DType dtype = DType::kF32;  // F32, F16 or BF16
  ExpertLayout layout = ExpertLayout::kPerExpert;
  bool released_spelling =
      false;  // rope_theta and torch_dtype, instead of rope_parameters and dtype
};

struct TinyTensor {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes;

  TensorView view() const { return {.dtype = dtype, .shape = shape, .bytes = bytes}; }
  // Element `index`, in row-major order, widened or rounded.
  float Get(std::size_t index) const;
  void Set(std::size_t index, float value);
};

class TinyCheckpoint {
 public:
  explicit TinyCheckpoint(const TinyCheckpointOptions& options = {});

  // Public: tests change what they like before writing.
  nlohmann::json config;
  std::optional<std::string> generation_config;  // file's text; unset: no file
  std::map<std::string, TinyTensor> tensors;

  // The config as parsed.
  ModelConfig model() const;

  // Writes config.json, generation_config.json if set, and model.safetensors, into a folder that
  // exists.
  void Write(const std::string& folder) const;

  // The same with `shards` files and their index. Tensor i in order of name goes to shard i mod
  // `shards`.
  void WriteSharded(const std::string& folder, int shards) const;
};

}  // namespace penstock
