// The forward pass on the GPU: one step's kernels, in order, on one stream.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda_stream.h"
#include "kernels/device_attention.h"
#include "kernels/route_rows.h"
#include "server/model/cuda/device_memory.h"
#include "server/model/cuda/device_weights.h"
#include "server/model/cuda/step/carver.h"
#include "server/model/cuda/step/step_arrays.h"

namespace penstock {

struct CudaForwardOptions {
  std::int64_t max_rows = 0;       // of a step
  std::int64_t max_sequences = 0;  // of a step; decode rows are at most as many
  std::int64_t max_context = 0;    // positions of one sequence
  std::int64_t block_tokens = 16;
  std::int64_t max_routers = 0;      // that the device knows at once
  std::int64_t max_hidden = 0;       // widest hidden layer of a router
  std::int64_t max_top = 0;          // most probable tokens beside a scored one
  std::int64_t max_token_lists = 0;  // entries of a step's bias and ban lists
  bool telemetry = true;             // counters of routing decisions
};

// Everything stands at a fixed address from the start, and nothing here waits for the device: what
// Enqueue adds to a stream may be captured as a graph and run again with other inputs.
class CudaForward {
 public:
  // `weights` must outlive the result.
  static absl::StatusOr<CudaForward> Create(const DeviceWeights& weights,
                                            const CudaForwardOptions& options);

  // Takes the cache: [layers, blocks, kv_heads, 2, block_tokens, head_dim].
  void SetCache(std::byte* cache, std::int64_t num_blocks);
  std::int64_t BlockBytes() const;  // of one block in all layers

  // Adds a step within `bounds` (at most the options') to the stream. The inputs stand in
  // input_memory(), laid out for the same bounds. Throws c10::Error.
  void Enqueue(const StepBounds& bounds, CudaStream stream) const;

  const CudaForwardOptions& options() const { return options_; }
  std::int64_t max_blocks() const {
    return (options_.max_context + options_.block_tokens - 1) / options_.block_tokens;
  }

  std::byte* input_memory() const { return inputs_; }           // StepInputs
  std::byte* output_memory() const { return outputs_; }         // StepOutputs
  std::int32_t* block_tables() const { return block_tables_; }  // [sequences, max_blocks]
  RouterProgram* programs() const { return programs_; }         // [layers, max_routers]
  std::int32_t* bias_tokens() const { return bias_tokens_; }    // [max_token_lists]
  float* biases() const { return biases_; }                     // [max_token_lists]
  std::int32_t* banned() const { return banned_; }              // [max_token_lists]
  std::int32_t* histories() const { return histories_; }        // [sequences, history_stride]
  std::int64_t history_stride() const { return options_.max_context + 1; }
  std::int32_t* top_tokens() const { return top_tokens_; }  // [logit rows, max_top]
  float* top_log_probabilities() const { return top_log_probabilities_; }
  // Of each layer: [layers, max_rows, k].
  std::int32_t* expert_ids() const { return expert_ids_; }
  float* expert_weights() const { return expert_weights_; }
  std::uint64_t* expert_rows() const { return expert_rows_; }  // [layers, max_routers, E]
  RouterCounters* counters() const { return counters_; }       // [layers, max_routers]

 private:
  // Rows up to which a product is bound by reading its weights, and the streaming kernels are ahead
  // of cuBLAS.
  static constexpr std::int64_t kStreamedRows = 64;
  // The output projection has few rows of weights: so many sums of parts of its inputs give every
  // processor a tile.
  static constexpr std::int64_t kOutputSplits = 4;

  // Where a step's arrays stand.
  struct Step {
    StepBounds bounds;
    StepInputs in;
    StepOutputs out;
    StepRows rows;
    CudaStream stream;
  };

  CudaForward(const DeviceWeights& weights, const CudaForwardOptions& options);
  void Lay(Carver& carver);
  void Plan(const Step& step) const;
  void Attend(const DeviceLayer& layer, std::size_t index, const Step& step) const;
  void FeedForward(const DeviceLayer& layer, std::size_t index, const Step& step) const;
  void Answer(const Step& step) const;
  // Whether products of so many rows run on the streaming kernels; else on cuBLAS, in one part.
  static bool Streamed(std::int64_t rows);
  // y = x Wᵀ, in `splits` parts.
  void Product(const DeviceMatrix& matrix, const void* x, std::int64_t rows, std::int64_t splits,
               Element y_element, void* y, CudaStream stream) const;
  RouteShape Routes(const Step& step) const;

  const DeviceWeights* weights_;
  CudaForwardOptions options_;
  std::int64_t num_blocks_ = 0;
  std::byte* cache_ = nullptr;
  DeviceBuffer arena_;

  std::byte *inputs_ = nullptr, *outputs_ = nullptr;
  std::int32_t* block_tables_ = nullptr;
  RouterProgram* programs_ = nullptr;
  std::int32_t *bias_tokens_ = nullptr, *banned_ = nullptr, *histories_ = nullptr;
  float* biases_ = nullptr;
  std::int32_t* top_tokens_ = nullptr;
  float* top_log_probabilities_ = nullptr;
  std::int32_t* expert_ids_ = nullptr;
  float* expert_weights_ = nullptr;
  std::uint64_t* expert_rows_ = nullptr;
  RouterCounters* counters_ = nullptr;

  float* rope_ = nullptr;              // [max_context, head_dim / 2, 2]
  std::int32_t* token_ids_ = nullptr;  // [rows]
  // Activations, bf16 but for products that are added up in fp32: [rows, ·].
  std::byte *x_ = nullptr, *normed_ = nullptr, *qkv_ = nullptr, *q_ = nullptr, *attended_ = nullptr,
            *delta_ = nullptr, *hidden_ = nullptr, *partials_ = nullptr, *wanted_ = nullptr,
            *logits_ = nullptr;
  float* shared_gate_logits_ = nullptr;     // [rows]
  std::int32_t* expert_offsets_ = nullptr;  // [E + 1]
  std::int32_t* slot_rows_ = nullptr;       // [rows · k]
  std::int32_t* tiles_ = nullptr;           // [layers, 4]
  void *attention_plan_ = nullptr, *route_plan_ = nullptr;
  // Zeroed once.
  void *attention_scratch_ = nullptr, *route_scratch_ = nullptr, *sample_scratch_ = nullptr;
};

}  // namespace penstock
