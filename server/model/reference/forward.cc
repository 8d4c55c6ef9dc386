#include "server/model/reference/forward.h"

#include <algorithm>
#include <cstring>

#include "ATen/TensorOperators.h"
#include "ATen/ops/arange.h"
#include "ATen/ops/pow.h"
#include "kernels/paged_attention.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "server/model/reference/parallel.h"
#include "server/model/reference/products.h"

namespace penstock {
namespace {

// Rows that a row-wise kernel takes at a time.
constexpr std::int64_t kRowsPerPiece = 16;
// Score multiply-adds of a step's attention below which it stays on one thread.
constexpr std::int64_t kSerialAttention = 1 << 17;

// Elements that a row-wise kernel goes over in the time that waking a thread takes.
constexpr std::int64_t kSerialElements = 1 << 15;

// Calls body(first, last) for pieces of [0, rows); a row has `width` elements.
template <typename Body>
void ForRows(std::int64_t rows, std::int64_t width, Body body) {
  const bool serial = rows * width < kSerialElements;
  ParallelFor((rows + kRowsPerPiece - 1) / kRowsPerPiece, serial, [&](int, std::int64_t i) {
    body(i * kRowsPerPiece, std::min(rows, (i + 1) * kRowsPerPiece));
  });
}

// θ^(−2i/hd), by the same ATen operations as Hugging Face, so that the values are the same.
std::vector<float> InverseFrequencies(double theta, std::int64_t head_dim) {
  const at::Tensor exponents =
      at::arange(0, head_dim, 2, at::kLong).to(at::kFloat) / static_cast<double>(head_dim);
  const at::Tensor values = (1.0 / at::pow(theta, exponents)).contiguous();
  const float* begin = values.const_data_ptr<float>();
  return {begin, begin + values.numel()};
}

}  // namespace

Forward::Forward(const ReferenceWeights& weights, const KvCache& cache)
    : weights_(weights),
      config_(weights.config()),
      cache_(cache),
      element_(weights.element()),
      feed_forward_(weights.config(), weights.element()),
      inverse_frequencies_(InverseFrequencies(config_.rope_theta, config_.head_dim)) {}

void Forward::Run(const StepBatch& batch, bool keep, StepRouting& routing) {
  const auto size = static_cast<std::int64_t>(SizeOf(element_));
  const std::int64_t rows = batch.rows;
  workers_.resize(std::max(workers_.size(), static_cast<std::size_t>(MaxWorkers())));
  routing = StepRouting();
  routing.failed.assign(static_cast<std::size_t>(rows), 0);
  routing.failed_at.assign(static_cast<std::size_t>(rows), 0);
  routing.router_time.assign(batch.routers.size(), absl::ZeroDuration());
  const std::vector<std::int64_t> sparse_layers = config_.SparseLayers();
  if (keep) routing.layers.resize(sparse_layers.size());

  Embed(batch);
  void* normed = normed_.Bytes(rows * config_.hidden_size * size);
  void* delta = delta_.Bytes(rows * config_.hidden_size * size);
  const std::int64_t half = config_.head_dim / 2;
  const RopeTableArgs table = {.element = element_,
                               .positions = batch.positions.data(),
                               .inverse_frequencies = inverse_frequencies_.data(),
                               .half = half,
                               .cos = cos_.Get<float>(rows * half),
                               .sin = sin_.Get<float>(rows * half)};
  ForRows(rows, 16 * half,
          [&](std::int64_t first, std::int64_t last) { RopeTableCpu(table, first, last); });

  int sparse = 0;
  for (std::int64_t index = 0; index < config_.layers; ++index) {
    const LayerWeights& layer = weights_.views().layers[static_cast<std::size_t>(index)];
    Normalize(layer.input_norm, index > 0, rows);
    Attend(layer, index, batch);
    Normalize(layer.post_attention_norm, true, rows);
    if (layer.sparse.has_value()) {
      feed_forward_.Sparse(*layer.sparse, static_cast<int>(index), sparse++, batch, normed, delta,
                           routing, keep);
    } else {
      feed_forward_.Dense(*layer.dense, normed, rows, delta);
    }
  }
}

void Forward::Embed(const StepBatch& batch) {
  const std::int64_t row_bytes = config_.hidden_size * static_cast<std::int64_t>(SizeOf(element_));
  auto* x = static_cast<std::byte*>(x_.Bytes(batch.rows * row_bytes));
  const std::byte* embedding = weights_.views().embed_tokens.bytes.data();
  for (std::int64_t row = 0; row < batch.rows; ++row) {
    std::memcpy(x + row * row_bytes,
                embedding + batch.tokens[static_cast<std::size_t>(row)] * row_bytes,
                static_cast<std::size_t>(row_bytes));
  }
}

void Forward::Normalize(const TensorView& weight, bool add_delta, std::int64_t rows) {
  const RmsNormArgs args = {.element = element_,
                            .x = x_.Bytes(0),
                            .delta = add_delta ? delta_.Bytes(0) : nullptr,
                            .weight = weight.bytes.data(),
                            .y = normed_.Bytes(0),
                            .d = config_.hidden_size,
                            .epsilon = static_cast<float>(config_.rms_norm_eps)};
  ForRows(rows, config_.hidden_size,
          [&](std::int64_t first, std::int64_t last) { RmsNormCpu(args, first, last); });
}

void Forward::Attend(const LayerWeights& layer, std::int64_t index, const StepBatch& batch) {
  const auto size = static_cast<std::int64_t>(SizeOf(element_));
  const std::int64_t rows = batch.rows;
  const AttentionWeights& attention = layer.attention;
  void* q = q_.Bytes(rows * attention.q.shape[0] * size);
  void* k = k_.Bytes(rows * attention.k.shape[0] * size);
  void* v = v_.Bytes(rows * attention.v.shape[0] * size);
  void* attended = attended_.Bytes(rows * attention.q.shape[0] * size);
  const void* normed = normed_.Bytes(0);

  std::vector<MatMulArgs> products = {Product(element_, normed, rows, attention.q, q),
                                      Product(element_, normed, rows, attention.k, k),
                                      Product(element_, normed, rows, attention.v, v)};
  if (attention.q_bias.has_value()) {
    products[0].bias = attention.q_bias->bytes.data();
    products[1].bias = attention.k_bias->bytes.data();
    products[2].bias = attention.v_bias->bytes.data();
  }
  RunProducts(products);

  const auto rope = [&](void* x, std::int64_t heads) {
    return RopeArgs{.element = element_,
                    .x = x,
                    .heads = heads,
                    .half = config_.head_dim / 2,
                    .cos = cos_.Get<float>(0),
                    .sin = sin_.Get<float>(0)};
  };
  const KvAppendArgs append = {.layout = cache_.layout(),
                               .k = k,
                               .v = v,
                               .blocks = batch.blocks.data(),
                               .offsets = batch.offsets.data(),
                               .keys = cache_.keys(index),
                               .values = cache_.values(index)};
  ForRows(rows, attention.q.shape[0] + 2 * attention.k.shape[0],
          [&](std::int64_t first, std::int64_t last) {
            RopeCpu(rope(q, config_.heads), first, last);
            RopeCpu(rope(k, config_.kv_heads), first, last);
            KvAppendCpu(append, first, last);
          });
  RunAttention(index, batch);
  RunProducts({Product(element_, attended, rows, attention.o, delta_.Bytes(0))});
}

void Forward::RunAttention(std::int64_t layer, const StepBatch& batch) {
  // A piece: some rows of one sequence, one KV head.
  struct Piece {
    PagedAttentionArgs args;
    std::int64_t kv_head, first, last;
  };
  const std::int64_t row_bytes =
      config_.heads * config_.head_dim * static_cast<std::int64_t>(SizeOf(element_));
  std::vector<Piece> pieces;
  std::int64_t work = 0;
  for (const PlannedSequence& planned : batch.plan->sequences) {
    PagedAttentionArgs args = {
        .layout = cache_.layout(),
        .q = static_cast<const std::byte*>(q_.Bytes(0)) + planned.first_row * row_bytes,
        .y = static_cast<std::byte*>(attended_.Bytes(0)) + planned.first_row * row_bytes,
        .heads = config_.heads,
        .scale = 1 / std::sqrt(static_cast<float>(config_.head_dim)),
        .keys = cache_.keys(layer),
        .values = cache_.values(layer),
        .block_table = planned.block_table.data(),
        .first_position = planned.first_position};
    for (std::int64_t first = 0; first < planned.num_rows; first += kRowsPerPiece) {
      const std::int64_t last = std::min<std::int64_t>(planned.num_rows, first + kRowsPerPiece);
      for (std::int64_t head = 0; head < config_.kv_heads; ++head)
        pieces.push_back({args, head, first, last});
      work += (last - first) * (planned.first_position + last) * config_.heads * config_.head_dim;
    }
  }
  ParallelFor(static_cast<std::int64_t>(pieces.size()), work < kSerialAttention,
              [&](int worker, std::int64_t i) {
                const Piece& piece = pieces[static_cast<std::size_t>(i)];
                void* scratch = workers_[static_cast<std::size_t>(worker)].Bytes(
                    PagedAttentionScratch(piece.args, piece.last - piece.first));
                PagedAttentionCpu(piece.args, piece.kv_head, piece.first, piece.last, scratch);
              });
}

const void* Forward::Logits(std::span<const std::int32_t> rows) {
  const std::int64_t row_bytes = config_.hidden_size * static_cast<std::int64_t>(SizeOf(element_));
  const auto count = static_cast<std::int64_t>(rows.size());
  auto* x = static_cast<std::byte*>(rows_x_.Bytes(count * row_bytes));
  // The last delta, and then the normalized rows.
  auto* delta = static_cast<std::byte*>(rows_delta_.Bytes(2 * count * row_bytes));
  void* normed = delta + count * row_bytes;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t from = rows[static_cast<std::size_t>(i)] * row_bytes;
    std::memcpy(x + i * row_bytes, static_cast<std::byte*>(x_.Bytes(0)) + from,
                static_cast<std::size_t>(row_bytes));
    std::memcpy(delta + i * row_bytes, static_cast<std::byte*>(delta_.Bytes(0)) + from,
                static_cast<std::size_t>(row_bytes));
  }
  const RmsNormArgs norm = {.element = element_,
                            .x = x,
                            .delta = delta,
                            .weight = weights_.views().final_norm.bytes.data(),
                            .y = normed,
                            .d = config_.hidden_size,
                            .epsilon = static_cast<float>(config_.rms_norm_eps)};
  ForRows(count, config_.hidden_size,
          [&](std::int64_t first, std::int64_t last) { RmsNormCpu(norm, first, last); });
  void* logits =
      logits_.Bytes(count * config_.vocab_size * static_cast<std::int64_t>(SizeOf(element_)));
  RunProducts({Product(element_, normed, count, weights_.views().lm_head, logits)});
  return logits;
}

}  // namespace penstock
