// Checkpoints as small as the GPU's kernels take them, and runners over them.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "server/model/cuda/cuda_model.h"
#include "tests/server/model/reference/model_runner.h"
#include "tests/support/tiny_checkpoint.h"

namespace penstock {

struct GpuShape {
  std::string name;
  TinyCheckpointOptions options;
};

// As small as the kernels take them, and uneven.
inline TinyCheckpointOptions SmallGpuModel() {
  TinyCheckpointOptions options;
  options.hidden_size = 128;
  options.layers = 3;
  options.heads = 4;
  options.kv_heads = 2;
  options.head_dim = 64;
  options.vocab_size = 500;
  options.max_position_embeddings = 512;
  options.experts = 10;
  options.top_k = 3;
  options.moe_intermediate_size = 40;
  options.shared_intermediate_size = 80;
  options.dtype = DType::kBF16;
  return options;
}

inline std::vector<GpuShape> GpuShapes() {
  std::vector<GpuShape> shapes = {{"Small", SmallGpuModel()}};
  // Qwen1.5-MoE's proportions: as many KV heads as heads, head_dim 128, four slices of shared
  // expert.
  TinyCheckpointOptions qwen = SmallGpuModel();
  qwen.hidden_size = 256;
  qwen.heads = qwen.kv_heads = 2;
  qwen.head_dim = 128;
  qwen.experts = 60;
  qwen.top_k = 4;
  qwen.moe_intermediate_size = 64;
  qwen.shared_intermediate_size = 256;
  shapes.push_back({"QwenLike", qwen});
  // The demo model's: three query heads to a KV head, tied embeddings, no biases, a wide shared
  // expert.
  TinyCheckpointOptions demo = SmallGpuModel();
  demo.hidden_size = 192;
  demo.heads = 3;
  demo.kv_heads = 1;
  demo.experts = 16;
  demo.top_k = 4;
  demo.moe_intermediate_size = 24;
  demo.shared_intermediate_size = 16 * 24;
  demo.qkv_bias = false;
  demo.tie_word_embeddings = true;
  demo.norm_topk_prob = true;
  shapes.push_back({"DemoLike", demo});
  return shapes;
}

inline CudaModelOptions SmallGpuOptions() {
  CudaModelOptions options;
  options.name = "tiny";
  options.max_batch = 24;
  options.max_step_rows = 400;
  options.max_context = 400;
  options.kv_bytes = std::int64_t{64} << 20;
  return options;
}

inline RunnerOptions OnGpu(const CudaModelOptions& cuda = SmallGpuOptions()) {
  RunnerOptions options;
  options.make_model = [cuda](const Checkpoint& checkpoint) {
    return CreateCudaModel(checkpoint, cuda);
  };
  options.device = at::kCUDA;
  options.scheduler.max_batch = 24;
  options.scheduler.token_budget = 376;
  options.scheduler.prefill_chunk = 352;
  return options;
}

inline RunnerOptions OnCpu(const std::string& dtype) {
  RunnerOptions options;
  options.model.dtype = dtype;
  options.scheduler.token_budget = 400;
  return options;
}

inline std::vector<TokenId> RandomTokens(int count, std::uint64_t seed, int vocab = 500) {
  std::mt19937_64 random(seed);
  std::vector<TokenId> tokens;
  for (int i = 0; i < count; ++i)
    tokens.push_back(static_cast<TokenId>(random() % static_cast<std::uint64_t>(vocab)));
  return tokens;
}

}  // namespace penstock
