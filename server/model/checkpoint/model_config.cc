#include "server/model/checkpoint/model_config.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/model/checkpoint/json_fields.h"

namespace penstock {
namespace {

// Bounds that no real model reaches. They keep every product of extents below 2^60, and a damaged
// file from asking for 2^31 layers.
constexpr std::int64_t kMaxLayers = 1024;
constexpr std::int64_t kMaxWidth = 1 << 17;
constexpr std::int64_t kMaxHeads = 1024;
constexpr std::int64_t kMaxHeadDim = 1024;
constexpr std::int64_t kMaxVocabulary = 1 << 24;
constexpr std::int64_t kMaxContext = 1 << 24;
// A router trace holds expert ids as bytes.
constexpr std::int64_t kMaxExperts = 256;

void ReadArchitecture(JsonFields& fields) {
  const nlohmann::json& type = fields.At("model_type");
  if (type != "qwen2_moe") fields.Violate("model_type", type, "\"qwen2_moe\"");
  // Optional in Hugging Face: written by save_pretrained, unused when the class is named.
  const nlohmann::json& architectures = fields.At("architectures");
  if (!architectures.is_null() && architectures != nlohmann::json{"Qwen2MoeForCausalLM"}) {
    const bool single = architectures.is_array() && architectures.size() == 1;
    fields.Violate("architectures", single ? architectures[0] : architectures,
                   "[\"Qwen2MoeForCausalLM\"]");
  }
  const nlohmann::json& activation = fields.At("hidden_act");
  if (!activation.is_null() && activation != "silu") {
    fields.Violate("hidden_act", activation, "\"silu\", the only activation supported");
  }
  if (fields.Has("quantization_config")) {
    fields.Violate("quantization_config", fields.At("quantization_config"),
                   "none: quantized checkpoints are not supported");
  }
  if (fields.Has("auto_map")) {
    fields.Violate("auto_map", fields.At("auto_map"),
                   "none: models with code of their own are not supported");
  }
}

void ReadAttention(JsonFields& fields, ModelConfig& config) {
  config.heads = fields.Integer("num_attention_heads", 1, kMaxHeads);
  config.kv_heads = fields.Integer("num_key_value_heads", 1, kMaxHeads);
  if (config.heads % config.kv_heads != 0) {
    fields.ViolateText("num_key_value_heads", absl::StrCat(config.kv_heads),
                       absl::StrCat("a divisor of num_attention_heads (", config.heads, ")"));
  }
  if (const auto head_dim = fields.OptionalInteger("head_dim", 2, kMaxHeadDim)) {
    config.head_dim = *head_dim;
  } else {
    config.head_dim = config.hidden_size / config.heads;
    if (config.hidden_size % config.heads != 0 || config.head_dim > kMaxHeadDim) {
      fields.ViolateText(
          "num_attention_heads", absl::StrCat(config.heads),
          absl::StrCat("a divisor of hidden_size (", config.hidden_size,
                       ") that gives heads of at most ", kMaxHeadDim, ", or head_dim to be set"));
    }
  }
  if (config.head_dim % 2 != 0) {
    fields.ViolateText("head_dim", absl::StrCat(config.head_dim),
                       "an even number (RoPE rotates pairs)");
  }
  config.qkv_bias = fields.OptionalBool("qkv_bias").value_or(true);

  const bool window_enabled = fields.OptionalBool("use_sliding_window").value_or(false);
  const std::int64_t window = fields.OptionalInteger("sliding_window", 0, INT32_MAX).value_or(0);
  if (window_enabled && window != 0) {
    fields.Violate("use_sliding_window", true,
                   "false: attention through a sliding window is not supported");
  }
  const nlohmann::json& types = fields.At("layer_types");
  if (types.is_null()) return;
  if (!types.is_array() || types.size() != static_cast<std::size_t>(config.layers)) {
    fields.Violate("layer_types", types,
                   absl::StrCat("a list of num_hidden_layers (", config.layers, ")"));
    return;
  }
  for (const nlohmann::json& type : types) {
    if (type == "full_attention") continue;
    fields.Violate("layer_types", type, "\"full_attention\", the only kind supported");
    return;
  }
}

// {rope_theta, rope_type or type}: any further key would belong to a scaling kind.
void ReadRopeKind(const nlohmann::json& object, const char* path, JsonFields& fields) {
  for (const auto& [key, value] : object.items()) {
    if (key == "rope_theta") continue;
    const std::string name = absl::StrCat(path, ".", key);
    if (key == "rope_type" || key == "type") {
      if (value != "default") {
        fields.Violate(name, value, "\"default\": RoPE scaling is not supported");
      }
    } else if (key == "partial_rotary_factor") {
      if (value != 1) fields.Violate(name, value, "1: partial rotation is not supported");
    } else if (!value.is_null()) {
      fields.Violate(name, value, "none: RoPE scaling is not supported");
    }
  }
}

void ReadRope(const std::string& file, JsonFields& fields, ModelConfig& config) {
  constexpr double kMaxBase = 1e15;
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const nlohmann::json& object = fields.At(key);
    if (object.is_object()) {
      ReadRopeKind(object, key, fields);
    } else if (!object.is_null()) {
      fields.Violate(key, object, "an object");
    }
  }
  if (const nlohmann::json& factor = fields.At("partial_rotary_factor");
      !factor.is_null() && factor != 1) {
    fields.Violate("partial_rotary_factor", factor, "1: partial rotation is not supported");
  }
  const nlohmann::json& parameters = fields.At("rope_parameters");
  std::optional<double> base = fields.OptionalNumber("rope_theta", 0, kMaxBase);
  if (parameters.is_object()) {
    JsonFields nested(file, parameters, "rope_parameters.");
    const std::optional<double> nested_base = nested.OptionalNumber("rope_theta", 0, kMaxBase);
    if (base && nested_base && *base != *nested_base) {
      nested.Violate("rope_theta", parameters["rope_theta"], absl::StrCat("rope_theta's ", *base));
    }
    if (!base) base = nested_base;
    fields.Adopt(nested);
    if (!base && nested.status().ok()) {
      fields.Violate("rope_theta", nullptr, "it here or in rope_parameters");
    }
  } else if (!base) {
    fields.Violate("rope_theta", nullptr, "it here or in rope_parameters");
  }
  config.rope_theta = base.value_or(kMaxBase);
}

void ReadExperts(JsonFields& fields, ModelConfig& config) {
  config.experts = fields.Integer("num_experts", 1, kMaxExperts);
  config.top_k = fields.Integer("num_experts_per_tok", 1, kMaxExperts);
  if (config.top_k > config.experts) {
    fields.ViolateText("num_experts_per_tok", absl::StrCat(config.top_k),
                       absl::StrCat("at most num_experts (", config.experts, ")"));
  }
  config.norm_topk_prob = fields.OptionalBool("norm_topk_prob").value_or(false);
  config.moe_intermediate_size = fields.Integer("moe_intermediate_size", 1, kMaxWidth);
  config.shared_intermediate_size = fields.Integer("shared_expert_intermediate_size", 1, kMaxWidth);

  // Layer i is sparse unless mlp_only_layers names it or decoder_sparse_step skips it
  // (modeling_qwen2_moe.py, Qwen2MoeDecoderLayer).
  const std::int64_t step =
      fields.OptionalInteger("decoder_sparse_step", 1, kMaxLayers).value_or(1);
  config.sparse.resize(static_cast<std::size_t>(config.layers));
  for (std::int64_t i = 0; i < config.layers; ++i) config.sparse[i] = (i + 1) % step == 0;
  if (const nlohmann::json& dense = fields.At("mlp_only_layers");
      !dense.is_null() && !dense.is_array()) {
    fields.Violate("mlp_only_layers", dense, "a list");
  } else {
    for (std::int64_t i : fields.Integers("mlp_only_layers", 0, config.layers - 1)) {
      config.sparse[i] = false;
    }
  }
  const std::int64_t sparse = std::count(config.sparse.begin(), config.sparse.end(), true);
  if (sparse == 0) {
    fields.ViolateText("mlp_only_layers", "every layer dense (with decoder_sparse_step)",
                       "at least one layer with experts");
  }
  if (sparse < config.layers) {
    config.dense_intermediate_size = fields.Integer("intermediate_size", 1, kMaxWidth);
  } else {
    fields.OptionalInteger("intermediate_size", 1,
                           kMaxWidth);  // unused, but no excuse for nonsense
  }
}

void ReadDType(JsonFields& fields, ModelConfig& config) {
  const auto read = [&fields](const char* key) -> std::optional<DType> {
    const nlohmann::json& field = fields.At(key);
    if (field.is_null()) return std::nullopt;
    if (field == "float32") return DType::kF32;
    if (field == "float16") return DType::kF16;
    if (field == "bfloat16") return DType::kBF16;
    fields.Violate(key, field, "\"float32\", \"float16\" or \"bfloat16\"");
    return std::nullopt;
  };
  const std::optional<DType> released = read("torch_dtype"), current = read("dtype");
  if (released && current && *released != *current) {
    fields.Violate("dtype", fields.At("dtype"), "torch_dtype's value");
  }
  config.dtype = current ? current : released;
}

}  // namespace

std::vector<std::int64_t> ModelConfig::SparseLayers() const {
  std::vector<std::int64_t> indices;
  for (std::int64_t i = 0; i < layers; ++i) {
    if (sparse[i]) indices.push_back(i);
  }
  return indices;
}

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json, std::string_view file) {
  PENSTOCK_ASSIGN_OR_RETURN(const nlohmann::json object, ParseJsonObject(json, file));
  JsonFields fields{std::string(file), object};
  ReadArchitecture(fields);
  // Another model's keys would only bury what matters.
  PENSTOCK_RETURN_IF_ERROR(fields.status());

  ModelConfig config;
  config.hidden_size = fields.Integer("hidden_size", 1, kMaxWidth);
  config.layers = fields.Integer("num_hidden_layers", 1, kMaxLayers);
  config.vocab_size = fields.Integer("vocab_size", 1, kMaxVocabulary);
  config.max_position_embeddings = fields.Integer("max_position_embeddings", 1, kMaxContext);
  config.rms_norm_eps = fields.Number("rms_norm_eps", 0, 1);
  config.tie_word_embeddings = fields.OptionalBool("tie_word_embeddings").value_or(false);
  ReadAttention(fields, config);
  ReadRope(std::string(file), fields, config);
  ReadExperts(fields, config);
  ReadDType(fields, config);
  const std::int64_t last_token = config.vocab_size - 1;
  config.eos_token_ids = fields.Integers("eos_token_id", 0, last_token);
  config.bos_token_id = fields.OptionalInteger("bos_token_id", 0, last_token);
  config.pad_token_id = fields.OptionalInteger("pad_token_id", 0, last_token);
  PENSTOCK_RETURN_IF_ERROR(fields.status());
  return config;
}

}  // namespace penstock
