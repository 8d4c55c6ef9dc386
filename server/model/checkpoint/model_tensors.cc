#include "server/model/checkpoint/model_tensors.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace penstock {
namespace {

class TensorList {
 public:
  TensorList(const ModelConfig& config, ExpertLayout layout, DType dtype)
      : config_(config), layout_(layout), dtype_(dtype) {}

  std::vector<TensorLayout> Make() {
    const std::int64_t d = config_.hidden_size;
    Add("model.embed_tokens.weight", {config_.vocab_size, d});
    for (std::int64_t i = 0; i < config_.layers; ++i) AddLayer(i);
    Add("model.norm.weight", {d});
    if (!config_.tie_word_embeddings) Add("lm_head.weight", {config_.vocab_size, d});
    return std::move(tensors_);
  }

 private:
  void Add(std::string name, std::vector<std::int64_t> shape) {
    tensors_.push_back({.name = std::move(name), .dtype = dtype_, .shape = std::move(shape)});
  }

  void AddLayer(std::int64_t i) {
    const std::int64_t d = config_.hidden_size;
    const auto add = [this, i](const std::string& suffix, std::vector<std::int64_t> shape) {
      Add(LayerTensorName(i, suffix), std::move(shape));
    };
    add("input_layernorm.weight", {d});
    const std::pair<const char*, std::int64_t> projections[] = {
        {"self_attn.q_proj", config_.heads * config_.head_dim},
        {"self_attn.k_proj", config_.kv_heads * config_.head_dim},
        {"self_attn.v_proj", config_.kv_heads * config_.head_dim}};
    for (const auto& [name, rows] : projections) {
      add(absl::StrCat(name, ".weight"), {rows, d});
      if (config_.qkv_bias) add(absl::StrCat(name, ".bias"), {rows});
    }
    add("self_attn.o_proj.weight", {d, config_.heads * config_.head_dim});
    add("post_attention_layernorm.weight", {d});
    if (!config_.sparse[i]) {
      AddMlp(LayerTensorName(i, "mlp"), config_.dense_intermediate_size);
      return;
    }
    const std::int64_t experts = config_.experts, f = config_.moe_intermediate_size;
    add("mlp.gate.weight", {experts, d});
    if (layout_ == ExpertLayout::kFused) {
      add("mlp.experts.gate_up_proj", {experts, 2 * f, d});
      add("mlp.experts.down_proj", {experts, d, f});
    } else {
      for (std::int64_t e = 0; e < experts; ++e) {
        AddMlp(LayerTensorName(i, absl::StrCat("mlp.experts.", e)), f);
      }
    }
    AddMlp(LayerTensorName(i, "mlp.shared_expert"), config_.shared_intermediate_size);
    add("mlp.shared_expert_gate.weight", {1, d});
  }

  void AddMlp(const std::string& prefix, std::int64_t width) {
    const std::int64_t d = config_.hidden_size;
    Add(prefix + ".gate_proj.weight", {width, d});
    Add(prefix + ".up_proj.weight", {width, d});
    Add(prefix + ".down_proj.weight", {d, width});
  }

  const ModelConfig& config_;
  const ExpertLayout layout_;
  const DType dtype_;
  std::vector<TensorLayout> tensors_;
};

}  // namespace

std::string LayerTensorName(std::int64_t layer, const std::string& suffix) {
  return absl::StrCat("model.layers.", layer, ".", suffix);
}

std::vector<TensorLayout> ModelTensors(const ModelConfig& config, ExpertLayout layout,
                                       DType dtype) {
  return TensorList(config, layout, dtype).Make();
}

}  // namespace penstock
