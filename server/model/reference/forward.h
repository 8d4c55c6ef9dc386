// The forward pass of Qwen2-MoE, rounding as Hugging Face's implementation does (transformers,
// models/qwen2_moe/modeling_qwen2_moe.py, with its default grouped_mm experts).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/element.h"
#include "server/model/reference/feed_forward.h"
#include "server/model/reference/host_buffer.h"
#include "server/model/reference/kv_cache.h"
#include "server/model/reference/step_batch.h"
#include "server/model/reference/weights.h"

namespace penstock {

// What a row gets never depends, to the bit, on the other rows of the step: every sum over inputs
// is taken in an order of its own kernel's, fixed by the model's shape.
class Forward {
 public:
  // Both must outlive this object.
  Forward(const ReferenceWeights& weights, const KvCache& cache);

  // Runs all layers over the batch, and writes its keys and values into the cache. `keep`:
  // routing.layers is wanted.
  void Run(const StepBatch& batch, bool keep, StepRouting& routing);

  // Logits of some rows of the batch that Run last ran, in the model's dtype: [rows.size(), V].
  // Valid until the next call.
  const void* Logits(std::span<const std::int32_t> rows);

 private:
  void Embed(const StepBatch& batch);
  void Attend(const LayerWeights& layer, std::int64_t index, const StepBatch& batch);
  void RunAttention(std::int64_t layer, const StepBatch& batch);
  // normed_ = norm(x_ += delta_); without delta for the first layer.
  void Normalize(const TensorView& weight, bool add_delta, std::int64_t rows);

  const ReferenceWeights& weights_;
  const ModelConfig& config_;
  const KvCache& cache_;
  const Element element_;
  FeedForward feed_forward_;
  std::vector<float> inverse_frequencies_;  // [head_dim / 2]

  // Activations, [rows, ·] in the model's dtype: the residual stream, what is still to be added to
  // it, and so on.
  Scratch x_, delta_, normed_, q_, k_, v_, attended_, cos_, sin_, rows_x_, rows_delta_, logits_;
  std::vector<Scratch> workers_;
};

}  // namespace penstock
