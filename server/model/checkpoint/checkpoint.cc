#include "server/model/checkpoint/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "routers/package/quote.h"
#include "server/base/check.h"
#include "server/base/status_macros.h"
#include "server/model/checkpoint/finite_check.h"
#include "server/model/checkpoint/json_fields.h"

namespace penstock {
namespace {

constexpr char kEmbedding[] = "model.embed_tokens.weight";
constexpr char kHead[] = "lm_head.weight";
constexpr std::int64_t kMaxConfigBytes = 16 << 20;

// Several faults of one kind say more than the first; hundreds say less.
class Faults {
 public:
  void Add(std::string fault) {
    if (shown_.size() < kMost) shown_.push_back(std::move(fault));
    ++count_;
  }

  absl::Status status() const {
    if (count_ == 0) return absl::OkStatus();
    std::string message = absl::StrJoin(shown_, "\n");
    if (count_ > kMost) absl::StrAppend(&message, "\nand ", count_ - kMost, " more");
    return absl::InvalidArgumentError(message);
  }

 private:
  static constexpr std::size_t kMost = 10;
  std::vector<std::string> shown_;
  std::size_t count_ = 0;
};

bool IsWeightType(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

// Block `index` of a tensor's first axis cut into blocks of `rows`.
TensorView Rows(const TensorView& matrix, std::int64_t index, std::int64_t rows) {
  const std::size_t row_bytes = matrix.bytes.size() / static_cast<std::size_t>(matrix.shape[0]);
  return {.dtype = matrix.dtype,
          .shape = {rows, matrix.shape[1]},
          .bytes = matrix.bytes.subspan(index * rows * row_bytes, rows * row_bytes)};
}

// Expert `e` of [E, rows, columns].
TensorView Slice(const TensorView& fused, std::int64_t e) {
  const std::size_t bytes = fused.bytes.size() / static_cast<std::size_t>(fused.shape[0]);
  return {.dtype = fused.dtype,
          .shape = {fused.shape[1], fused.shape[2]},
          .bytes = fused.bytes.subspan(e * bytes, bytes)};
}

absl::StatusOr<GenerationConfig> ReadGenerationConfig(const std::string& path,
                                                      const ModelConfig& config) {
  const absl::StatusOr<std::string> text = ReadTextFile(path, kMaxConfigBytes);
  if (absl::IsNotFound(text.status())) return DefaultGenerationConfig(config);
  PENSTOCK_RETURN_IF_ERROR(text.status());
  return ParseGenerationConfig(*text, path, config);
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Checkpoint>> Checkpoint::Open(
    const std::string& folder, const CheckpointOptions& options) {
  const std::string config_path = folder + "/config.json";
  PENSTOCK_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(config_path, kMaxConfigBytes));
  PENSTOCK_ASSIGN_OR_RETURN(ModelConfig config, ParseModelConfig(text, config_path));
  PENSTOCK_ASSIGN_OR_RETURN(GenerationConfig generation,
                            ReadGenerationConfig(folder + "/generation_config.json", config));
  PENSTOCK_ASSIGN_OR_RETURN(Shards shards, Shards::Open(folder));
  std::shared_ptr<Checkpoint> checkpoint(
      new Checkpoint(folder, std::move(config), std::move(generation), std::move(shards)));
  PENSTOCK_RETURN_IF_ERROR(checkpoint->CheckTensors());
  const int cores = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 8);
  PENSTOCK_RETURN_IF_ERROR(CheckFinite(checkpoint->shards_.tensors(),
                                       options.threads > 0 ? options.threads : cores,
                                       options.progress));
  checkpoint->AssignRoles();
  return checkpoint;
}

Checkpoint::Checkpoint(std::string folder, ModelConfig config, GenerationConfig generation,
                       Shards shards)
    : folder_(std::move(folder)),
      config_(std::move(config)),
      generation_(std::move(generation)),
      shards_(std::move(shards)) {}

absl::Status Checkpoint::CheckTensors() {
  const auto& stored = shards_.tensors();
  const std::int64_t first_sparse = config_.SparseLayers().front();
  layout_ = stored.contains(LayerTensorName(first_sparse, "mlp.experts.gate_up_proj"))
                ? ExpertLayout::kFused
                : ExpertLayout::kPerExpert;
  const auto embedding = stored.find(kEmbedding);
  if (embedding == stored.end()) {
    return absl::InvalidArgumentError(absl::StrCat(folder_, ": tensor ", kEmbedding, ": missing"));
  }
  dtype_ = embedding->second.view.dtype;
  const auto place = [](const std::string& file, const std::string& name) {
    return absl::StrCat(file, ": tensor ", Quote(name), ": ");
  };
  if (!IsWeightType(dtype_)) {
    return absl::InvalidArgumentError(absl::StrCat(place(embedding->second.file, kEmbedding),
                                                   "got dtype ", std::string(Name(dtype_)),
                                                   ", want F32, F16 or BF16"));
  }
  if (config_.dtype && *config_.dtype != dtype_) {
    return absl::InvalidArgumentError(absl::StrCat(
        place(embedding->second.file, kEmbedding), "got dtype ", std::string(Name(dtype_)),
        ", want config.json's ", std::string(Name(*config_.dtype))));
  }
  Faults faults;
  std::map<std::string, TensorLayout, std::less<>> wanted;
  for (TensorLayout& tensor : ModelTensors(config_, layout_, dtype_)) {
    const auto found = stored.find(tensor.name);
    if (found == stored.end()) {
      faults.Add(absl::StrCat(folder_, ": tensor ", Quote(tensor.name), ": missing, want ",
                              std::string(Name(dtype_)), " ", ShapeString(tensor.shape)));
    } else if (found->second.view.shape != tensor.shape) {
      faults.Add(absl::StrCat(place(found->second.file, tensor.name), "got shape ",
                              ShapeString(found->second.view.shape), ", want ",
                              ShapeString(tensor.shape)));
    } else if (found->second.view.dtype != dtype_) {
      faults.Add(absl::StrCat(place(found->second.file, tensor.name), "got dtype ",
                              std::string(Name(found->second.view.dtype)), ", want ",
                              std::string(Name(dtype_)), " as ", kEmbedding, " has"));
    }
    wanted.emplace(tensor.name, std::move(tensor));
  }
  for (const auto& [name, tensor] : stored) {
    if (wanted.contains(name)) continue;
    if (config_.tie_word_embeddings && name == kHead) {
      const std::span<const std::byte> head = tensor.view.bytes,
                                       tied = embedding->second.view.bytes;
      if (tensor.view.dtype == dtype_ && tensor.view.shape == embedding->second.view.shape &&
          std::memcmp(head.data(), tied.data(), tied.size()) == 0) {
        continue;
      }
      faults.Add(
          absl::StrCat(place(tensor.file, name),
                       "differs from the embedding, want none: tie_word_embeddings is true"));
      continue;
    }
    faults.Add(absl::StrCat(place(tensor.file, name), "surplus: config.json has no place for it"));
  }
  return faults.status();
}

void Checkpoint::AssignRoles() {
  weights_.embed_tokens = Get(kEmbedding);
  weights_.final_norm = Get("model.norm.weight");
  weights_.lm_head = Get(config_.tie_word_embeddings ? kEmbedding : kHead);
  for (std::int64_t i = 0; i < config_.layers; ++i) weights_.layers.push_back(Layer(i));
}

const TensorView& Checkpoint::Get(const std::string& name) const {
  const auto tensor = shards_.tensors().find(name);
  PENSTOCK_CHECK(tensor != shards_.tensors().end()) << name;
  return tensor->second.view;
}

LayerWeights Checkpoint::Layer(std::int64_t i) const {
  const auto get = [this, i](const char* suffix) { return Get(LayerTensorName(i, suffix)); };
  LayerWeights layer;
  layer.input_norm = get("input_layernorm.weight");
  layer.post_attention_norm = get("post_attention_layernorm.weight");
  layer.attention.q = get("self_attn.q_proj.weight");
  layer.attention.k = get("self_attn.k_proj.weight");
  layer.attention.v = get("self_attn.v_proj.weight");
  layer.attention.o = get("self_attn.o_proj.weight");
  if (config_.qkv_bias) {
    layer.attention.q_bias = get("self_attn.q_proj.bias");
    layer.attention.k_bias = get("self_attn.k_proj.bias");
    layer.attention.v_bias = get("self_attn.v_proj.bias");
  }
  if (config_.sparse[i]) {
    layer.sparse = SparseMlpWeights{.router = get("mlp.gate.weight"),
                                    .experts = Experts(i),
                                    .shared_expert = Mlp(LayerTensorName(i, "mlp.shared_expert")),
                                    .shared_expert_gate = get("mlp.shared_expert_gate.weight")};
  } else {
    layer.dense = Mlp(LayerTensorName(i, "mlp"));
  }
  return layer;
}

MlpWeights Checkpoint::Mlp(const std::string& prefix) const {
  return {.gate = Get(prefix + ".gate_proj.weight"),
          .up = Get(prefix + ".up_proj.weight"),
          .down = Get(prefix + ".down_proj.weight")};
}

std::vector<MlpWeights> Checkpoint::Experts(std::int64_t layer) const {
  std::vector<MlpWeights> experts;
  for (std::int64_t e = 0; e < config_.experts; ++e) {
    if (layout_ == ExpertLayout::kPerExpert) {
      experts.push_back(Mlp(LayerTensorName(layer, absl::StrCat("mlp.experts.", e))));
      continue;
    }
    const TensorView gate_up = Slice(Get(LayerTensorName(layer, "mlp.experts.gate_up_proj")), e);
    const std::int64_t f = config_.moe_intermediate_size;
    experts.push_back({.gate = Rows(gate_up, 0, f),
                       .up = Rows(gate_up, 1, f),
                       .down = Slice(Get(LayerTensorName(layer, "mlp.experts.down_proj")), e)});
  }
  return experts;
}

std::int64_t Checkpoint::weight_bytes() const {
  std::int64_t bytes = 0;
  for (const TensorLayout& tensor : ModelTensors(config_, layout_, dtype_)) {
    bytes += static_cast<std::int64_t>(Get(tensor.name).bytes.size());
  }
  return bytes;
}

RouterShape Checkpoint::router_shape() const {
  return {.d = config_.hidden_size,
          .experts = config_.experts,
          .top_k = config_.top_k,
          .layers = config_.SparseLayers(),
          .vocab_size = config_.vocab_size,
          .norm_topk_prob = config_.norm_topk_prob};
}

std::vector<NamedGate> Checkpoint::gates() const {
  std::vector<NamedGate> gates;
  for (std::int64_t i : config_.SparseLayers()) {
    const std::string name = LayerTensorName(i, "mlp.gate.weight");
    gates.push_back({.name = name, .weight = Get(name)});
  }
  return gates;
}

}  // namespace penstock
