// A Qwen2-MoE checkpoint folder, opened and checked: config, generation config, and every weight by
// its role.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "routers/package/fingerprint.h"
#include "routers/package/router_kind.h"
#include "routers/package/safetensors.h"
#include "server/model/checkpoint/byte_progress.h"
#include "server/model/checkpoint/generation_config.h"
#include "server/model/checkpoint/model_config.h"
#include "server/model/checkpoint/model_tensors.h"
#include "server/model/checkpoint/shards.h"

namespace penstock {

// y = down(silu(gate x) ⊙ up x), with width w: a routed or shared expert, or a dense layer's MLP.
struct MlpWeights {
  TensorView gate, up;  // [w, d]
  TensorView down;      // [d, w]
};

struct AttentionWeights {
  TensorView q;     // [heads · head_dim, d]
  TensorView k, v;  // [kv_heads · head_dim, d]
  TensorView o;     // [d, heads · head_dim]
  std::optional<TensorView> q_bias, k_bias,
      v_bias;  // one value a row; all or none, as qkv_bias says
};

struct SparseMlpWeights {
  TensorView router;                // [E, d], the checkpoint's own gate
  std::vector<MlpWeights> experts;  // [E], width f, slices where the file holds them fused
  MlpWeights shared_expert;
  TensorView shared_expert_gate;  // [1, d]
};

struct LayerWeights {
  TensorView input_norm, post_attention_norm;  // [d]
  AttentionWeights attention;
  std::optional<SparseMlpWeights> sparse;  // exactly one of these two is set
  std::optional<MlpWeights> dense;
};

struct ModelWeights {
  TensorView embed_tokens;           // [V, d]
  std::vector<LayerWeights> layers;  // [layers]
  TensorView final_norm;             // [d]
  TensorView lm_head;                // [V, d]; tied: embed_tokens
};

struct CheckpointOptions {
  int threads = 0;                  // that check the values; 0: one a core, 8 at most
  ByteProgress progress = nullptr;  // of that check, which reads every byte of the weights
};

// Immutable and thread-safe. All views are of memory-mapped files and live as long as this object:
// weights are held once.
class Checkpoint {
 public:
  // Reads config.json, generation_config.json (may be absent) and the weights. Errors name file,
  // tensor or key, what was found and what was wanted: NOT_FOUND for missing files,
  // INVALID_ARGUMENT for wrong ones. Refused, up to ten tensors at once: what Shards and the two
  // parsers refuse; a tensor missing, surplus, misshapen, of another dtype than F32, F16 or BF16 or
  // than the rest or the config; NaN and infinity. A tied checkpoint may hold lm_head.weight if it
  // equals the embedding.
  static absl::StatusOr<std::shared_ptr<const Checkpoint>> Open(
      const std::string& folder, const CheckpointOptions& options = {});

  const std::string& folder() const { return folder_; }
  const ModelConfig& config() const { return config_; }
  const GenerationConfig& generation() const { return generation_; }
  const ModelWeights& weights() const { return weights_; }
  DType dtype() const { return dtype_; }  // of every weight
  ExpertLayout layout() const { return layout_; }
  std::int64_t weight_bytes() const;  // of all tensors; tied ones count once

  // What routers need of the model, and what a router package's base_fingerprint is taken over:
  // BaseFingerprint(router_shape(), config().layers, gates()).
  RouterShape router_shape() const;
  std::vector<NamedGate> gates() const;  // of the sparse layers, ascending

 private:
  Checkpoint(std::string folder, ModelConfig config, GenerationConfig generation, Shards shards);
  // Settles layout and dtype, and checks names, shapes and dtypes.
  absl::Status CheckTensors();
  void AssignRoles();
  const TensorView& Get(const std::string& name) const;
  LayerWeights Layer(std::int64_t i) const;
  MlpWeights Mlp(const std::string& prefix) const;
  std::vector<MlpWeights> Experts(std::int64_t layer) const;

  const std::string folder_;
  const ModelConfig config_;
  const GenerationConfig generation_;
  const Shards shards_;
  DType dtype_ = DType::kF32;
  ExpertLayout layout_ = ExpertLayout::kPerExpert;
  ModelWeights weights_;
};

}  // namespace penstock
