// The tensors of a Qwen2MoeForCausalLM checkpoint: names and shapes.
// Source: transformers, models/qwen2_moe/modeling_qwen2_moe.py and what save_pretrained writes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "routers/package/safetensors_writer.h"
#include "server/model/checkpoint/model_config.h"

namespace penstock {

enum class ExpertLayout {
  kPerExpert,  // experts.{e}.gate_proj.weight [f, d], up_proj [f, d], down_proj [d, f]: as released
               // and as saved by default
  kFused,      // experts.gate_up_proj [E, 2f, d] (gate rows first) and experts.down_proj [E, d, f],
               // without ".weight"
};

// "model.layers.3.mlp.gate.weight", for layer 3 and "mlp.gate.weight".
std::string LayerTensorName(std::int64_t layer, const std::string& suffix);

// Every tensor, layer by layer in the order of the forward pass. A tied output head has none of its
// own.
std::vector<TensorLayout> ModelTensors(const ModelConfig& config, ExpertLayout layout, DType dtype);

}  // namespace penstock
