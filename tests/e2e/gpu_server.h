// A server on a GPU, over a checkpoint as small as its kernels take.
#pragma once

#include <string>
#include <vector>

#include "tests/e2e/server_process.h"
#include "tests/support/tiny_checkpoint.h"

namespace penstock {

inline TinyCheckpointOptions GpuShape() {
  TinyCheckpointOptions options;
  options.hidden_size = 128;
  options.heads = options.kv_heads = 2;
  options.head_dim = 64;
  options.vocab_size = 272;
  options.max_position_embeddings = 4096;
  options.experts = 10;
  options.top_k = 3;
  options.moe_intermediate_size = 40;
  options.shared_intermediate_size = 80;
  options.dtype = DType::kBF16;
  return options;
}

inline const TinyModel& GpuModel() {
  static const TinyModel model(GpuShape());
  return model;
}

// Arguments of a server over GpuModel's configuration.
inline std::vector<std::string> OnGpu() {
  return {"--set", "model.device=cuda",         "--set", "engine.max_context=4096",
          "--set", "limits.max_new_tokens=3800"};
}

}  // namespace penstock
