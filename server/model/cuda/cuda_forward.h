// The forward pass on the GPU: one step's kernels, in order, on one stream.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda_stream.h"
#include "kernels/device_attention.h"
#include "kernels/route_rows.h"
#include "kernels/shadow_routes.h"
#include "server/model/cuda/device_memory.h"
#include "server/model/cuda/device_weights.h"
#include "server/model/cuda/step/carver.h"
#include "server/model/cuda/step/step_arrays.h"

struct CUevent_st;

namespace penstock {

// What a step with shadow routing asks besides, and when the device worked on it.
struct ForwardShadows {
  ShadowRouters routers;
  std::vector<CUevent_st*> events;  // two for each layer: recorded before and after a piece of work
  int pieces = 0;                   // out
};

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

  // Adds a step within `bounds` (at most the options') to the stream, with shadow routing or
  // without. The inputs stand in input_memory(), laid out for the same bounds. Throws c10::Error.
  void Enqueue(const StepBounds& bounds, CudaStream stream,
               ForwardShadows* shadows = nullptr) const;

  // Steps of so many rows leave behind what routers saw in all layers: their shadow routing may be
  // added after they were.
  bool KeepsHiddenStates(std::int64_t rows) const { return KeptLayers(rows) == num_layers(); }
  // Adds the shadow routing of the step that the stream runs last, if it keeps hidden states.
  void EnqueueShadows(const StepBounds& bounds, ForwardShadows* shadows, CudaStream stream) const;

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
  // Of routers that are only asked: [layers, max_routers].
  RouterProgram* shadow_programs() const { return shadow_programs_; }
  // What comes of shadow routing: [layers, pairs of the step], and · E.
  RouteAgreement* agreements() const { return agreements_; }
  std::int32_t* shadow_rows() const { return shadow_rows_; }

 private:
  // Rows up to which a product is bound by reading its weights, and the streaming kernels are ahead
  // of cuBLAS.
  static constexpr std::int64_t kStreamedRows = 64;
  // Rows up to which a step may be captured: its products take no workspace of their own.
  static constexpr std::int64_t kCapturedRows = 256;
  // The output projection has few rows of weights: so many sums of parts of its inputs give every
  // processor a tile.
  static constexpr std::int64_t kOutputSplits = 4;

  // Rows of a step whose hidden states are kept, layer by layer: of decode steps.
  static constexpr std::int64_t kKeptRows = 256;

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
  Step Arrange(const StepBounds& bounds, CudaStream stream) const;
  std::int64_t num_layers() const { return weights_->config().layers; }
  // Layers whose routers' hidden states are there at a time, in steps of so many rows.
  std::int64_t KeptLayers(std::int64_t rows) const;
  std::byte* HiddenStates(std::size_t layer, std::int64_t rows) const;
  ShadowShape Shadows() const;
  // Of `layers` layers that are kept together.
  void AskShadows(std::int64_t first, std::int64_t layers, const Step& step,
                  ForwardShadows* shadows) const;
  void Plan(const Step& step) const;
  void Attend(const DeviceLayer& layer, std::size_t index, const Step& step) const;
  void FeedForward(const DeviceLayer& layer, std::size_t index, const Step& step) const;
  void Answer(const Step& step) const;
  // Whether products of so many rows run on the streaming kernels; else on cuBLAS, in one part.
  static bool Streamed(std::int64_t rows);
  // y = x Wᵀ, in `splits` parts; + bias, where it is not streamed.
  void Product(const DeviceMatrix& matrix, const void* x, std::int64_t rows, std::int64_t splits,
               Element y_element, void* y, CudaStream stream, const void* bias = nullptr) const;
  RouteShape Routes(const Step& step) const;
  // Whether the layer's shared experts are computed while its router is at work.
  bool StartsEarly(const DeviceLayer& layer, const Step& step) const;

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
  RouterProgram* shadow_programs_ = nullptr;
  RouteAgreement* agreements_ = nullptr;
  std::int32_t* shadow_rows_ = nullptr;

  float* rope_ = nullptr;              // [max_context, head_dim / 2, 2]
  std::int32_t* token_ids_ = nullptr;  // [rows]
  // Activations, bf16 but for products that are added up in fp32: [rows, ·].
  std::byte *x_ = nullptr, *normed_ = nullptr, *qkv_ = nullptr, *q_ = nullptr, *attended_ = nullptr,
            *delta_ = nullptr, *hidden_ = nullptr, *partials_ = nullptr, *wanted_ = nullptr,
            *logits_ = nullptr;
  std::int64_t kept_rows_ = 0;
  std::byte* routed_ = nullptr;             // [kept_rows, d] bf16: what routers see
  float* shared_gate_logits_ = nullptr;     // [rows]
  std::int32_t* expert_offsets_ = nullptr;  // [E + 1]
  std::int32_t* slot_rows_ = nullptr;       // [rows · k]
  std::int32_t* tiles_ = nullptr;           // [layers, 2, kTileCounters]
  std::int32_t* hidden_ready_ = nullptr;    // [layers]: rows of HiddenStates that are there
  void *attention_plan_ = nullptr, *route_plan_ = nullptr;
  // Zeroed once.
  void *attention_scratch_ = nullptr, *route_scratch_ = nullptr, *sample_scratch_ = nullptr,
       *shadow_scratch_ = nullptr;
};

}  // namespace penstock
