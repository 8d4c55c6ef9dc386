#include "server/model/cuda/cuda_forward.h"

#include <algorithm>
#include <cmath>

#include "kernels/attention_inputs.h"
#include "kernels/dense_product.h"
#include "kernels/embed_rows.h"
#include "kernels/expert_combine.h"
#include "kernels/expert_products.h"
#include "kernels/residual_norm.h"
#include "kernels/sample_rows.h"
#include "kernels/spread_tables.h"
#include "server/base/check.h"
#include "server/model/cuda/cublas_product.h"

namespace penstock {
RouteShape CudaForward::Routes(const Step& step) const {
  const ModelConfig& config = weights_->config();
  return {.max_rows = step.bounds.rows,
          .max_routers = options_.max_routers,
          .max_hidden = options_.max_hidden,
          .d = config.hidden_size,
          .experts = config.experts,
          .k = config.top_k};
}

bool CudaForward::Streamed(std::int64_t rows) { return rows <= kStreamedRows; }

void CudaForward::Product(const DeviceMatrix& matrix, const void* x, std::int64_t rows,
                          std::int64_t splits, Element y_element, void* y, CudaStream stream,
                          const void* bias) const {
  if (!Streamed(rows)) {
    PENSTOCK_CHECK_EQ(splits, 1);
    CublasProduct({.x = x,
                   .weight = matrix.values,
                   .rows = rows,
                   .n = matrix.n,
                   .m = matrix.m,
                   .y_element = y_element,
                   .bias = bias,
                   .y = y},
                  stream);
    return;
  }
  PENSTOCK_CHECK(bias == nullptr);
  DenseProductCuda({.x = x,
                    .weight = matrix.values,
                    .weight_map = matrix.tiles(),
                    .rows = rows,
                    .n = matrix.n,
                    .m = matrix.m,
                    .splits = splits,
                    .y_element = y_element,
                    .y = y},
                   stream);
}

CudaForward::Step CudaForward::Arrange(const StepBounds& bounds, CudaStream stream) const {
  PENSTOCK_CHECK_LE(bounds.rows, options_.max_rows);
  PENSTOCK_CHECK_LE(bounds.logit_rows, bounds.rows);
  Carver inputs(inputs_), outputs(outputs_);
  Step step{.bounds = bounds,
            .in = StepInputs::Lay(bounds, inputs),
            .out = StepOutputs::Lay(bounds, outputs),
            .rows = {},
            .stream = stream};
  step.rows = {.num_rows = step.in.counts + StepInputs::kNumRows,
               .max_rows = bounds.rows,
               .positions = step.in.positions,
               .sequences = step.in.sequences,
               .block_tables = block_tables_,
               .max_blocks = max_blocks()};
  return step;
}

void CudaForward::Enqueue(const StepBounds& bounds, CudaStream stream,
                          ForwardShadows* shadows) const {
  const Step step = Arrange(bounds, stream);
  const std::int64_t layers = num_layers(), kept = KeptLayers(bounds.rows);
  Plan(step);
  for (std::int64_t i = 0; i < layers; ++i) {
    const auto index = static_cast<std::size_t>(i);
    const DeviceLayer& layer = weights_->layers()[index];
    Attend(layer, index, step);
    FeedForward(layer, index, step);
    const bool all_kept = (i + 1) % kept == 0 || i + 1 == layers;
    if (shadows != nullptr && all_kept) {
      const std::int64_t first = i / kept * kept;
      AskShadows(first, i + 1 - first, step, shadows);
    }
  }
  Answer(step);
}

void CudaForward::Plan(const Step& step) const {
  const ModelConfig& config = weights_->config();
  SpreadTablesCuda({.num_sequences = step.in.counts + StepInputs::kNumSequences,
                    .max_sequences = std::min(step.bounds.rows, options_.max_sequences),
                    .width = step.in.counts + StepInputs::kTableWidth,
                    .dense = step.in.block_tables,
                    .max_blocks = max_blocks(),
                    .tables = block_tables_},
                   step.stream);
  PlanAttentionCuda({.rows = step.rows,
                     .num_decode_rows = step.in.counts + StepInputs::kNumDecodeRows,
                     .plan = {attention_plan_, options_.max_rows}},
                    step.stream);
  PlanRoutesCuda({.shape = Routes(step),
                  .num_rows = step.rows.num_rows,
                  .row_routers = step.in.row_routers,
                  .programs = programs_,
                  .plan = {route_plan_}},
                 step.stream);
  EmbedRowsCuda({.num_rows = step.rows.num_rows,
                 .max_rows = step.bounds.rows,
                 .tokens = step.in.tokens,
                 .sampled = step.out.sampled,
                 .table = weights_->embedding(),
                 .vocab = config.vocab_size,
                 .d = config.hidden_size,
                 .token_ids = token_ids_,
                 .x = x_,
                 .failed_layer = step.out.failed_layer},
                step.stream);
  ResidualNormCuda({.num_rows = step.rows.num_rows,
                    .max_rows = step.bounds.rows,
                    .x = x_,
                    .weight = weights_->layers().front().input_norm,
                    .epsilon = static_cast<float>(config.rms_norm_eps),
                    .d = config.hidden_size,
                    .y = normed_},
                   step.stream);
}

// hidden states = post_attention_norm(x_ += attention(normed_)).
void CudaForward::Attend(const DeviceLayer& layer, std::size_t index, const Step& step) const {
  const ModelConfig& config = weights_->config();
  const std::int64_t rows = step.bounds.rows;
  const std::int64_t layer_elements =
      num_blocks_ * config.kv_heads * 2 * options_.block_tokens * config.head_dim;
  const KvBlocks kv{.cache = cache_ + 2 * static_cast<std::int64_t>(index) * layer_elements,
                    .kv_heads = config.kv_heads,
                    .head_dim = config.head_dim,
                    .block_tokens = options_.block_tokens};
  // Where cuBLAS adds the bias, sums are rounded once, as AttentionInputs rounds them, and take
  // half the memory.
  const bool streamed = Streamed(rows), biased = rows > kCapturedRows;
  const Element element = biased ? Element::kBF16 : Element::kF32;
  Product(layer.qkv, normed_, rows, 1, element, qkv_, step.stream,
          biased ? layer.qkv_bias : nullptr);
  AttentionInputsCuda({.rows = step.rows,
                       .qkv = qkv_,
                       .qkv_element = element,
                       .part_rows = rows,
                       .bias = biased ? nullptr : layer.qkv_bias,
                       .rope = rope_,
                       .heads = config.heads,
                       .kv = kv,
                       .q = q_},
                      step.stream);
  const DeviceAttentionArgs attention{.rows = step.rows,
                                      .plan = {attention_plan_, options_.max_rows},
                                      .kv = kv,
                                      .q = q_,
                                      .heads = config.heads,
                                      .scale = 1 / std::sqrt(static_cast<float>(config.head_dim)),
                                      .scratch = attention_scratch_,
                                      .y = attended_};
  if (step.bounds.decode_rows > 0) DecodeAttentionCuda(attention, step.stream);
  if (step.bounds.decode_rows < rows) PrefillAttentionCuda(attention, step.stream);
  Product(layer.o, attended_, rows, streamed ? kOutputSplits : 1,
          streamed ? Element::kF32 : Element::kBF16, delta_, step.stream);
  ResidualNormCuda({.num_rows = step.rows.num_rows,
                    .max_rows = rows,
                    .x = x_,
                    .delta_parts = streamed ? reinterpret_cast<const float*>(delta_) : nullptr,
                    .parts = kOutputSplits,
                    .part_rows = rows,
                    .delta = streamed ? nullptr : delta_,
                    .weight = layer.post_attention_norm,
                    .epsilon = static_cast<float>(config.rms_norm_eps),
                    .d = config.hidden_size,
                    .y = HiddenStates(index, rows),
                    .ready = StartsEarly(layer, step) ? hidden_ready_ + index : nullptr},
                   step.stream);
}

bool CudaForward::StartsEarly(const DeviceLayer& layer, const Step& step) const {
  return layer.experts_mapped && weights_->shared() > 0 &&
         step.bounds.rows <= ExpertProductsArgs::kMaxEarlyRows;
}

// normed_ = next norm(x_ += experts(hidden states)).
void CudaForward::FeedForward(const DeviceLayer& layer, std::size_t index, const Step& step) const {
  const ModelConfig& config = weights_->config();
  const auto i = static_cast<std::int64_t>(index);
  const std::int64_t rows = step.bounds.rows, traced = i * options_.max_rows * config.top_k;
  ExpertProductsArgs experts{.x = HiddenStates(index, rows),
                             .gate_up = layer.gate_up,
                             .down = layer.down,
                             .gate_up_map = layer.experts_mapped ? &layer.gate_up_map : nullptr,
                             .down_map = layer.experts_mapped ? &layer.down_map : nullptr,
                             .expert_offsets = expert_offsets_,
                             .slots = slot_rows_,
                             .h = hidden_,
                             .y = partials_,
                             .gate_up_tiles = tiles_ + 2 * i * ExpertProductsArgs::kTileCounters,
                             .down_tiles = tiles_ + (2 * i + 1) * ExpertProductsArgs::kTileCounters,
                             .x_ready = StartsEarly(layer, step) ? hidden_ready_ + i : nullptr,
                             .rows = rows,
                             .d = config.hidden_size,
                             .width = config.moe_intermediate_size,
                             .experts = config.experts,
                             .shared = weights_->shared(),
                             .k = config.top_k};
  const bool own_lists = ListsItself(experts);
  if (own_lists) {
    experts.expert_ids = expert_ids_ + traced;
    experts.num_rows = step.rows.num_rows;
  }
  RouteRowsCuda({.shape = Routes(step),
                 .plan = {route_plan_},
                 .num_rows = step.rows.num_rows,
                 .row_routers = step.in.row_routers,
                 .counted = step.in.counted,
                 .token_ids = token_ids_,
                 .x = HiddenStates(index, rows),
                 .programs = programs_ + i * options_.max_routers,
                 .normalize = config.norm_topk_prob,
                 .shared_gate = weights_->shared() > 0 ? layer.shared_gate : nullptr,
                 .layer = static_cast<std::int32_t>(index),
                 .scratch = route_scratch_,
                 .expert_ids = expert_ids_ + traced,
                 .weights = expert_weights_ + traced,
                 .shared_gate_logits = shared_gate_logits_,
                 .expert_offsets = own_lists ? nullptr : expert_offsets_,
                 .slot_rows = own_lists ? nullptr : slot_rows_,
                 .failed_layer = step.out.failed_layer,
                 .expert_rows = expert_rows_ + i * options_.max_routers * config.experts,
                 .counters = options_.telemetry ? counters_ + i * options_.max_routers : nullptr},
                step.stream);
  ExpertGateUpCuda(experts, step.stream);
  ExpertDownCuda(experts, step.stream);
  const bool last = index + 1 == weights_->layers().size();
  ExpertCombineCuda(
      {.num_rows = step.rows.num_rows,
       .max_rows = rows,
       .partial_element = Element::kBF16,
       .partials = partials_,
       .weights = expert_weights_ + traced,
       .shared_gate_logits = shared_gate_logits_,
       .k = config.top_k,
       .shared = SharedPlaces(experts),
       .x = x_,
       .norm_weight = last ? weights_->final_norm() : weights_->layers()[index + 1].input_norm,
       .epsilon = static_cast<float>(config.rms_norm_eps),
       .d = config.hidden_size,
       .y = normed_},
      step.stream);
}

// Logits of the wanted rows, kLogitChunk at a time, and a token of each.
void CudaForward::Answer(const Step& step) const {
  const ModelConfig& config = weights_->config();
  for (std::int64_t first = 0; first < step.bounds.logit_rows; first += kLogitChunk) {
    const std::int64_t rows = std::min(kLogitChunk, step.bounds.logit_rows - first);
    const std::int32_t* count = step.in.counts + StepInputs::kNumLogitRows + first / kLogitChunk;
    GatherRowsCuda({.count = count,
                    .max_count = rows,
                    .rows = step.in.logit_rows + first,
                    .x = normed_,
                    .d = config.hidden_size,
                    .y = wanted_},
                   step.stream);
    Product(weights_->head(), wanted_, rows, 1, Element::kBF16, logits_, step.stream);
    SampleRowsCuda({.num_rows = count,
                    .max_rows = rows,
                    .logits = logits_,
                    .logit_stride = weights_->vocab_rows(),
                    .vocab = config.vocab_size,
                    .rows = step.in.samples + first,
                    .bias_tokens = bias_tokens_,
                    .biases = biases_,
                    .banned = banned_,
                    .histories = histories_,
                    .history_stride = history_stride(),
                    .scratch = sample_scratch_,
                    .sampled = step.out.sampled + first,
                    .log_probability = step.out.log_probability + first,
                    .finite = step.out.finite + first,
                    .max_top = options_.max_top,
                    .top_tokens = top_tokens_ + first * options_.max_top,
                    .top_log_probabilities = top_log_probabilities_ + first * options_.max_top},
                   step.stream);
  }
}

}  // namespace penstock
