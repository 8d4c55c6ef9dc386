#include "tests/support/tiny_checkpoint.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/model/checkpoint/half.h"
#include "server/model/checkpoint/random_weights.h"
#include "tests/support/temporary_folder.h"

namespace penstock {
namespace {

const char* ConfigName(DType dtype) {
  return dtype == DType::kF32 ? "float32" : dtype == DType::kF16 ? "float16" : "bfloat16";
}

nlohmann::json MakeConfig(const TinyCheckpointOptions& options) {
  nlohmann::json config = {{"architectures", {"Qwen2MoeForCausalLM"}},
                           {"model_type", "qwen2_moe"},
                           {"hidden_act", "silu"},
                           {"hidden_size", options.hidden_size},
                           {"num_hidden_layers", options.layers},
                           {"num_attention_heads", options.heads},
                           {"num_key_value_heads", options.kv_heads},
                           {"head_dim", options.head_dim},
                           {"vocab_size", options.vocab_size},
                           {"max_position_embeddings", options.max_position_embeddings},
                           {"num_experts", options.experts},
                           {"num_experts_per_tok", options.top_k},
                           {"moe_intermediate_size", options.moe_intermediate_size},
                           {"shared_expert_intermediate_size", options.shared_intermediate_size},
                           {"intermediate_size", options.dense_intermediate_size},
                           {"norm_topk_prob", options.norm_topk_prob},
                           {"qkv_bias", options.qkv_bias},
                           {"tie_word_embeddings", options.tie_word_embeddings},
                           {"mlp_only_layers", options.mlp_only_layers},
                           {"decoder_sparse_step", options.decoder_sparse_step},
                           {"rms_norm_eps", options.rms_norm_eps}};
  if (options.released_spelling) {
    config["rope_theta"] = options.rope_theta;
    config["torch_dtype"] = ConfigName(options.dtype);
  } else {
    config["rope_parameters"] = {{"rope_theta", options.rope_theta}, {"rope_type", "default"}};
    config["dtype"] = ConfigName(options.dtype);
  }
  return config;
}

void WriteTensors(const std::string& path, const std::map<std::string, TinyTensor>& tensors) {
  std::vector<std::pair<std::string, TensorView>> views;
  for (const auto& [name, tensor] : tensors) views.emplace_back(name, tensor.view());
  const absl::Status written = WriteSafetensors(path, views);
  PENSTOCK_CHECK(written.ok()) << written.ToString();
}

}  // namespace

float TinyTensor::Get(std::size_t index) const {
  PENSTOCK_CHECK_LE((index + 1) * SizeOf(dtype), bytes.size());
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, bytes.data() + index * sizeof(value), sizeof(value));
    return value;
  }
  std::uint16_t bits;
  std::memcpy(&bits, bytes.data() + index * sizeof(bits), sizeof(bits));
  return dtype == DType::kF16 ? FromHalf(bits) : FromBFloat16(bits);
}

void TinyTensor::Set(std::size_t index, float value) {
  PENSTOCK_CHECK_LE((index + 1) * SizeOf(dtype), bytes.size());
  if (dtype == DType::kF32) {
    std::memcpy(bytes.data() + index * sizeof(value), &value, sizeof(value));
    return;
  }
  const std::uint16_t bits = dtype == DType::kF16 ? ToHalf(value) : ToBFloat16(value);
  std::memcpy(bytes.data() + index * sizeof(bits), &bits, sizeof(bits));
}

TinyCheckpoint::TinyCheckpoint(const TinyCheckpointOptions& options) : config(MakeConfig(options)) {
  for (const TensorLayout& layout : ModelTensors(model(), options.layout, options.dtype)) {
    TinyTensor tensor{.dtype = layout.dtype, .shape = layout.shape, .bytes = {}};
    tensor.bytes.resize(tensor.view().NumElements() * SizeOf(layout.dtype));
    RandomWeights(options.seed, layout.name).Fill(ScaleOf(layout), layout.dtype, 0, tensor.bytes);
    tensors.emplace(layout.name, std::move(tensor));
  }
}

ModelConfig TinyCheckpoint::model() const {
  absl::StatusOr<ModelConfig> model = ParseModelConfig(config.dump(), "config.json");
  PENSTOCK_CHECK(model.ok()) << model.status().ToString();
  return *std::move(model);
}

void TinyCheckpoint::Write(const std::string& folder) const {
  WriteFile(folder + "/config.json", config.dump(2));
  if (generation_config) WriteFile(folder + "/generation_config.json", *generation_config);
  WriteTensors(folder + "/model.safetensors", tensors);
}

void TinyCheckpoint::WriteSharded(const std::string& folder, int shards) const {
  WriteFile(folder + "/config.json", config.dump(2));
  if (generation_config) WriteFile(folder + "/generation_config.json", *generation_config);
  std::vector<std::map<std::string, TinyTensor>> parts(shards);
  nlohmann::json index = {{"metadata", nlohmann::json::object()}};
  const auto file_name = [shards](int i) {
    return absl::StrCat("model-", absl::Dec(i + 1, absl::kZeroPad5), "-of-",
                        absl::Dec(shards, absl::kZeroPad5), ".safetensors");
  };
  int i = 0;
  for (const auto& [name, tensor] : tensors) {
    parts[i].emplace(name, tensor);
    index["weight_map"][name] = file_name(i);
    i = (i + 1) % shards;
  }
  for (int shard = 0; shard < shards; ++shard) {
    WriteTensors(folder + "/" + file_name(shard), parts[shard]);
  }
  WriteFile(folder + "/model.safetensors.index.json", index.dump(2));
}

}  // namespace penstock
