// Where the arrays of a forward pass stand.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <vector>

#include "ATen/TensorOperators.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/pow.h"
#include "kernels/expert_products.h"
#include "kernels/rope.h"
#include "server/base/status_macros.h"
#include "server/model/cuda/cuda_forward.h"

namespace penstock {
namespace {

// [positions, head_dim / 2, 2]: cosine and sine, as Hugging Face computes them (kernels/rope.h).
std::vector<float> RopeTable(const ModelConfig& config, std::int64_t positions) {
  const std::int64_t half = config.head_dim / 2;
  const at::Tensor exponents = at::arange(0, config.head_dim, 2, at::kLong).to(at::kFloat) /
                               static_cast<double>(config.head_dim);
  const at::Tensor frequencies = (1.0 / at::pow(config.rope_theta, exponents)).contiguous();
  std::vector<std::int32_t> rows(static_cast<std::size_t>(positions));
  for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::int32_t>(i);
  std::vector<float> cos(rows.size() * static_cast<std::size_t>(half)), sin(cos.size()),
      table(2 * cos.size());
  RopeTableCpu({.element = Element::kBF16,
                .positions = rows.data(),
                .inverse_frequencies = frequencies.const_data_ptr<float>(),
                .half = half,
                .cos = cos.data(),
                .sin = sin.data()},
               0, positions);
  for (std::size_t i = 0; i < cos.size(); ++i) {
    table[2 * i] = cos[i];
    table[2 * i + 1] = sin[i];
  }
  return table;
}

}  // namespace

CudaForward::CudaForward(const DeviceWeights& weights, const CudaForwardOptions& options)
    : weights_(&weights), options_(options) {}

void CudaForward::Lay(Carver& carver) {
  const ModelConfig& c = weights_->config();
  const std::int64_t rows = options_.max_rows, d = c.hidden_size, heads = c.heads * c.head_dim,
                     qkv = heads + 2 * c.kv_heads * c.head_dim,
                     slots = c.top_k + weights_->shared(), logit_rows = std::min(rows, kLogitChunk);
  const auto bf16 = [&](std::int64_t elements) { return carver.Take<std::byte>(2 * elements); };
  const StepBounds most{.rows = rows, .decode_rows = options_.max_sequences, .logit_rows = rows};
  Carver inputs(nullptr), outputs(nullptr);
  StepInputs::Lay(most, inputs);
  StepOutputs::Lay(most, outputs);
  inputs_ = carver.Take<std::byte>(inputs.used() + 4 * options_.max_sequences * max_blocks());
  outputs_ = carver.Take<std::byte>(outputs.used());
  block_tables_ = carver.Take<std::int32_t>(options_.max_sequences * max_blocks());
  programs_ = carver.Take<RouterProgram>(c.layers * options_.max_routers);
  bias_tokens_ = carver.Take<std::int32_t>(options_.max_token_lists);
  biases_ = carver.Take<float>(options_.max_token_lists);
  banned_ = carver.Take<std::int32_t>(options_.max_token_lists);
  histories_ = carver.Take<std::int32_t>(options_.max_sequences * history_stride());
  top_tokens_ = carver.Take<std::int32_t>(rows * options_.max_top);
  top_log_probabilities_ = carver.Take<float>(rows * options_.max_top);
  expert_ids_ = carver.Take<std::int32_t>(c.layers * rows * c.top_k);
  expert_weights_ = carver.Take<float>(c.layers * rows * c.top_k);
  expert_rows_ = carver.Take<std::uint64_t>(c.layers * options_.max_routers * c.experts);
  counters_ = carver.Take<RouterCounters>(c.layers * options_.max_routers);
  constexpr std::int64_t kPairs = ShadowRouters::kMax * ShadowRouters::kMax;
  shadow_programs_ = carver.Take<RouterProgram>(c.layers * options_.max_routers);
  agreements_ = carver.Take<RouteAgreement>(c.layers * kPairs);
  shadow_rows_ = carver.Take<std::int32_t>(c.layers * kPairs * c.experts);

  rope_ = carver.Take<float>(options_.max_context * c.head_dim);
  token_ids_ = carver.Take<std::int32_t>(rows);
  x_ = bf16(rows * d);
  normed_ = bf16(rows * d);
  kept_rows_ = std::max(rows, c.layers * std::min(rows, kKeptRows));
  routed_ = bf16(kept_rows_ * d);
  qkv_ = carver.Take<std::byte>(4 * rows * qkv);
  q_ = bf16(rows * heads);
  attended_ = bf16(rows * heads);
  delta_ = carver.Take<std::byte>(
      std::max(2 * rows, 4 * kOutputSplits * std::min(rows, kStreamedRows)) * d);
  hidden_ = bf16(rows * slots * c.moe_intermediate_size);
  partials_ = bf16(rows * slots * d);
  wanted_ = bf16(logit_rows * d);
  logits_ = bf16(logit_rows * weights_->vocab_rows());
  shared_gate_logits_ = carver.Take<float>(rows);
  expert_offsets_ = carver.Take<std::int32_t>(c.experts + 1);
  slot_rows_ = carver.Take<std::int32_t>(rows * c.top_k);
  tiles_ = carver.Take<std::int32_t>(c.layers * 2 * ExpertProductsArgs::kTileCounters);
  hidden_ready_ = carver.Take<std::int32_t>(c.layers);

  const RouteShape routes =
      Routes({.bounds = most, .in = {}, .out = {}, .rows = {}, .stream = nullptr});
  const DeviceAttentionArgs attention{
      .rows = {.max_rows = rows, .max_blocks = max_blocks()},
      .plan = {},
      .kv = {.kv_heads = c.kv_heads, .head_dim = c.head_dim, .block_tokens = options_.block_tokens},
      .heads = c.heads};
  attention_plan_ = carver.Bytes(static_cast<std::int64_t>(AttentionPlanBytes(rows)));
  route_plan_ = carver.Bytes(static_cast<std::int64_t>(RoutePlanBytes(routes)));
  attention_scratch_ =
      carver.Bytes(static_cast<std::int64_t>(DecodeAttentionScratchBytes(attention)));
  route_scratch_ = carver.Bytes(static_cast<std::int64_t>(RouteScratchBytes(routes)));
  shadow_scratch_ = carver.Bytes(static_cast<std::int64_t>(ShadowScratchBytes(Shadows())));
  sample_scratch_ =
      carver.Bytes(static_cast<std::int64_t>(SampleScratchBytes(logit_rows, c.vocab_size)));
}

absl::StatusOr<CudaForward> CudaForward::Create(const DeviceWeights& weights,
                                                const CudaForwardOptions& options) {
  CudaForward forward(weights, options);
  Carver measure(nullptr);
  forward.Lay(measure);
  PENSTOCK_ASSIGN_OR_RETURN(
      forward.arena_,
      DeviceBuffer::Create(measure.used(), "a step's activations",
                           "lower engine.prefill_chunk, engine.max_batch or engine.max_context"));
  PENSTOCK_RETURN_IF_ERROR(CudaStatus(
      cudaMemset(forward.arena_.start(), 0, static_cast<std::size_t>(forward.arena_.bytes())),
      "clearing memory"));
  Carver carver(forward.arena_.start());
  forward.Lay(carver);
  const std::vector<float> rope = RopeTable(weights.config(), options.max_context);
  PENSTOCK_RETURN_IF_ERROR(CudaStatus(
      cudaMemcpy(forward.rope_, rope.data(), rope.size() * sizeof(float), cudaMemcpyHostToDevice),
      "copying a table"));
  return forward;
}

std::int64_t CudaForward::BlockBytes() const {
  const ModelConfig& config = weights_->config();
  return config.layers * config.kv_heads * 2 * options_.block_tokens * config.head_dim * 2;
}

void CudaForward::SetCache(std::byte* cache, std::int64_t num_blocks) {
  cache_ = cache;
  num_blocks_ = num_blocks;
}

}  // namespace penstock
