#include "server/model/cuda/device_weights.h"

#include <cuda_runtime_api.h>

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/fill_normal.h"
#include "server/base/status_macros.h"
#include "server/model/cuda/weight_copies.h"

namespace penstock {
namespace {

constexpr std::int64_t kRowGroup =
    8;  // rows of the head; a kernel reads 16 bytes of logits at a time

WeightCopy Whole(const TensorView& view, std::byte* to) {
  const std::int64_t columns = view.shape.back();
  return {.from = view.bytes.data(),
          .dtype = view.dtype,
          .rows = view.NumElements() / columns,
          .columns = columns,
          .from_stride = columns,
          .to = to};
}

// Experts' copies: `count` of `width` rows each in one MLP, which has count · width.
void AddExperts(const MlpWeights& mlp, std::int64_t count, std::int64_t width, std::int64_t d,
                std::byte* gate_up, std::byte* down, std::vector<WeightCopy>& copies) {
  for (std::int64_t i = 0; i < count; ++i) {
    const auto rows = [&](const TensorView& view, std::byte* to) {
      WeightCopy copy = Whole(view, to);
      copy.rows = width;
      copy.from += i * width * d * static_cast<std::int64_t>(SizeOf(view.dtype));
      return copy;
    };
    copies.push_back(rows(mlp.gate, gate_up + 4 * i * width * d));
    copies.push_back(rows(mlp.up, gate_up + 4 * i * width * d + 2 * width * d));
    WeightCopy columns = Whole(mlp.down, down + 2 * i * d * width);
    columns.columns = width;
    columns.from += i * width * static_cast<std::int64_t>(SizeOf(mlp.down.dtype));
    copies.push_back(columns);
  }
}

}  // namespace

absl::Status DeviceWeights::CheckShape(const ModelConfig& config) {
  std::vector<std::string> faults;
  const auto want = [&](bool holds, const char* key, std::int64_t got, const char* wanted) {
    if (!holds) faults.push_back(absl::StrCat(key, ": got ", got, ", want ", wanted));
  };
  want(config.hidden_size % 8 == 0 && config.hidden_size <= 8192, "hidden_size", config.hidden_size,
       "a multiple of 8, at most 8192");
  want(config.head_dim == 64 || config.head_dim == 128, "head_dim", config.head_dim, "64 or 128");
  want(config.experts >= 1 && config.experts <= 256, "num_experts", config.experts, "1 to 256");
  want(config.top_k <= 16, "num_experts_per_tok", config.top_k, "at most 16");
  const std::int64_t width = config.moe_intermediate_size;
  want(width % 8 == 0, "moe_intermediate_size", width, "a multiple of 8");
  want(width > 0 && config.shared_intermediate_size % width == 0, "shared_expert_intermediate_size",
       config.shared_intermediate_size, "a multiple of moe_intermediate_size");
  want(config.SparseLayers().size() == static_cast<std::size_t>(config.layers), "sparse layers",
       static_cast<std::int64_t>(config.SparseLayers().size()), "all: dense layers have no kernel");
  if (faults.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the GPU engine cannot compute this model: ", absl::StrJoin(faults, "; ")));
}

void DeviceWeights::Lay(Carver& carver) {
  const ModelConfig& c = config_;
  const std::int64_t d = c.hidden_size, width = c.moe_intermediate_size, all = c.experts + shared();
  const std::int64_t heads = c.heads * c.head_dim, kv = 2 * c.kv_heads * c.head_dim;
  const auto take = [&](std::int64_t elements) { return carver.Take<std::byte>(2 * elements); };
  const auto matrix = [&](DeviceMatrix& to, std::int64_t m, std::int64_t n) {
    to.values = take(m * n);
    to.m = m;
    to.n = n;
  };
  const std::int64_t vocab_rows = (c.vocab_size + kRowGroup - 1) / kRowGroup * kRowGroup;
  matrix(head_, vocab_rows, d);
  embedding_ = c.tie_word_embeddings ? head_.values : take(c.vocab_size * d);
  final_norm_ = take(d);
  layers_.resize(static_cast<std::size_t>(c.layers));
  for (DeviceLayer& layer : layers_) {
    layer.input_norm = take(d);
    layer.post_attention_norm = take(d);
    matrix(layer.qkv, heads + kv, d);
    layer.qkv_bias = c.qkv_bias ? take(heads + kv) : nullptr;
    matrix(layer.o, d, heads);
    layer.gate_up = take(all * 2 * width * d);
    layer.down = take(all * d * width);
    layer.shared_gate = take(d);
  }
}

void DeviceWeights::MakeMaps() {
  const auto map = [](DeviceMatrix& matrix) {
    matrix.mapped = MakeTileMap(matrix.values, 1, matrix.m, matrix.n, &matrix.map);
  };
  const std::int64_t all = config_.experts + shared(), width = config_.moe_intermediate_size,
                     d = config_.hidden_size;
  map(head_);
  for (DeviceLayer& layer : layers_) {
    map(layer.qkv);
    map(layer.o);
    layer.experts_mapped = MakeGatedTileMap(layer.gate_up, all, width, d, &layer.gate_up_map) &&
                           MakeTileMap(layer.down, all, d, width, &layer.down_map);
  }
}

absl::Status DeviceWeights::Allocate() {
  PENSTOCK_RETURN_IF_ERROR(CheckShape(config_));
  Carver measure(nullptr);
  Lay(measure);
  PENSTOCK_ASSIGN_OR_RETURN(
      buffer_, DeviceBuffer::Create(measure.used(), "the model's weights in bf16",
                                    "take a GPU with more memory, or a smaller model"));
  Carver carver(buffer_.start());
  Lay(carver);
  const std::int64_t padding = head_.m - config_.vocab_size;
  PENSTOCK_RETURN_IF_ERROR(
      CudaStatus(cudaMemset(head_.values + 2 * config_.vocab_size * config_.hidden_size, 0,
                            static_cast<std::size_t>(2 * padding * config_.hidden_size)),
                 "clearing memory"));
  MakeMaps();
  return absl::OkStatus();
}

absl::StatusOr<DeviceWeights> DeviceWeights::Load(const Checkpoint& checkpoint,
                                                  const ByteProgress& progress) {
  DeviceWeights weights(checkpoint.config());
  PENSTOCK_RETURN_IF_ERROR(weights.Allocate());
  const ModelWeights& views = checkpoint.weights();
  const ModelConfig& config = weights.config_;
  const std::int64_t d = config.hidden_size, width = config.moe_intermediate_size;
  std::vector<WeightCopy> copies;
  copies.push_back(Whole(views.embed_tokens, weights.embedding_));
  if (!config.tie_word_embeddings) copies.push_back(Whole(views.lm_head, weights.head_.values));
  copies.push_back(Whole(views.final_norm, weights.final_norm_));
  for (std::size_t i = 0; i < weights.layers_.size(); ++i) {
    const LayerWeights& from = views.layers[i];
    const DeviceLayer& to = weights.layers_[i];
    copies.push_back(Whole(from.input_norm, to.input_norm));
    copies.push_back(Whole(from.post_attention_norm, to.post_attention_norm));
    std::byte *matrix = to.qkv.values, *bias = to.qkv_bias;
    const AttentionWeights& attention = from.attention;
    for (const TensorView* view : {&attention.q, &attention.k, &attention.v}) {
      copies.push_back(Whole(*view, matrix));
      matrix += 2 * view->NumElements();
    }
    for (const std::optional<TensorView>* view :
         {&attention.q_bias, &attention.k_bias, &attention.v_bias}) {
      if (!view->has_value()) continue;
      copies.push_back(Whole(**view, bias));
      bias += 2 * (*view)->NumElements();
    }
    copies.push_back(Whole(attention.o, to.o.values));
    const SparseMlpWeights& sparse = *from.sparse;
    for (std::int64_t e = 0; e < config.experts; ++e) {
      AddExperts(sparse.experts[static_cast<std::size_t>(e)], 1, width, d,
                 to.gate_up + 4 * e * width * d, to.down + 2 * e * d * width, copies);
    }
    AddExperts(sparse.shared_expert, weights.shared(), width, d,
               to.gate_up + 4 * config.experts * width * d,
               to.down + 2 * config.experts * d * width, copies);
    copies.push_back(Whole(sparse.shared_expert_gate, to.shared_gate));
  }
  PENSTOCK_RETURN_IF_ERROR(RunWeightCopies(copies, progress));
  return weights;
}

absl::StatusOr<DeviceWeights> DeviceWeights::MakeRandom(const ModelConfig& config,
                                                        std::uint64_t seed) {
  DeviceWeights weights(config);
  PENSTOCK_RETURN_IF_ERROR(weights.Allocate());
  std::uint32_t tensor = 0;
  const auto normal = [&](std::byte* values, std::int64_t count, double std) {
    FillNormalCuda(
        {.seed = seed, .stream = {0, tensor++}, .std = std, .values = values, .count = count},
        nullptr);
  };
  const auto ones = [&](std::byte* values, std::int64_t count) {
    FillConstantCuda({.value = 1, .values = values, .count = count}, nullptr);
  };
  const auto matrix = [&](const DeviceMatrix& m) {
    normal(m.values, m.m * m.n, 1 / std::sqrt(static_cast<double>(m.n)));
  };
  const std::int64_t d = config.hidden_size, width = config.moe_intermediate_size,
                     all = config.experts + weights.shared();
  const double from_hidden = 1 / std::sqrt(static_cast<double>(d));
  normal(weights.head_.values, config.vocab_size * d, from_hidden);
  // Embeddings that outweigh what layers add, and small biases: rows stay apart, and spread over
  // all experts.
  if (!config.tie_word_embeddings) normal(weights.embedding_, config.vocab_size * d, 1);
  ones(weights.final_norm_, d);
  for (const DeviceLayer& layer : weights.layers_) {
    ones(layer.input_norm, d);
    ones(layer.post_attention_norm, d);
    matrix(layer.qkv);
    if (layer.qkv_bias != nullptr) normal(layer.qkv_bias, layer.qkv.m, 0.01);
    matrix(layer.o);
    normal(layer.gate_up, all * 2 * width * d, from_hidden);
    normal(layer.down, all * d * width, 1 / std::sqrt(static_cast<double>(width)));
    normal(layer.shared_gate, d, from_hidden);
  }
  PENSTOCK_RETURN_IF_ERROR(CudaStatus(cudaGetLastError(), "making random weights"));
  PENSTOCK_RETURN_IF_ERROR(CudaStatus(cudaDeviceSynchronize(), "making random weights"));
  return weights;
}

}  // namespace penstock
