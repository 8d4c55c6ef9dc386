// A model's weights on the GPU, in bf16, laid out for the kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/tile_map.h"
#include "server/model/checkpoint/checkpoint.h"
#include "server/model/cuda/device_memory.h"
#include "server/model/cuda/step/carver.h"

namespace penstock {

// A matrix [m, n] that rows are multiplied with, and where the copy engine finds its tiles.
struct DeviceMatrix {
  std::byte* values = nullptr;  // bf16 [m, n]
  std::int64_t m = 0, n = 0;
  TileMap map;
  bool mapped = false;  // false: the copy engine cannot read this shape

  const TileMap* tiles() const { return mapped ? &map : nullptr; }
};

struct DeviceLayer {
  std::byte* input_norm = nullptr;           // [d]
  std::byte* post_attention_norm = nullptr;  // [d]
  DeviceMatrix qkv;               // queries, keys, values: [(heads + 2 · kv_heads) · head_dim, d]
  std::byte* qkv_bias = nullptr;  // [(heads + 2 · kv_heads) · head_dim], or null
  DeviceMatrix o;                 // [d, heads · head_dim]
  std::byte* gate_up = nullptr;   // [E + shared, 2, width, d]
  std::byte* down = nullptr;      // [E + shared, d, width]
  std::byte* shared_gate = nullptr;  // [d]
  TileMap gate_up_map, down_map;
  bool experts_mapped = false;
};

class DeviceWeights {
 public:
  // INVALID_ARGUMENT names what of the shape the GPU's kernels cannot compute.
  static absl::Status CheckShape(const ModelConfig& config);

  // Copies the checkpoint's weights, converted to bf16 where they are not, by several threads.
  static absl::StatusOr<DeviceWeights> Load(const Checkpoint& checkpoint,
                                            const ByteProgress& progress);

  // Seeded random weights made on the device, scaled so that activations stay near 1.
  static absl::StatusOr<DeviceWeights> MakeRandom(const ModelConfig& config, std::uint64_t seed);

  const ModelConfig& config() const { return config_; }
  // Slices of the shared expert, each as wide as a routed expert.
  std::int64_t shared() const {
    return config_.shared_intermediate_size / config_.moe_intermediate_size;
  }
  std::int64_t vocab_rows() const {
    return head_.m;
  }  // of the head: vocab_size, rounded up to a multiple of 8

  const std::byte* embedding() const { return embedding_; }    // [V, d]
  const std::byte* final_norm() const { return final_norm_; }  // [d]
  const DeviceMatrix& head() const { return head_; }  // [vocab_rows, d]; rows past V are zero
  const std::vector<DeviceLayer>& layers() const { return layers_; }
  std::int64_t bytes() const { return buffer_.bytes(); }

 private:
  explicit DeviceWeights(const ModelConfig& config) : config_(config) {}
  absl::Status Allocate();
  void Lay(Carver& carver);
  void MakeMaps();

  ModelConfig config_;
  DeviceBuffer buffer_;
  std::byte* embedding_ = nullptr;
  std::byte* final_norm_ = nullptr;
  DeviceMatrix head_;
  std::vector<DeviceLayer> layers_;
};

}  // namespace penstock
