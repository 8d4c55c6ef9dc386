#include "server/model/reference/feed_forward.h"

#include <algorithm>
#include <cstring>

#include "kernels/combine.h"
#include "server/model/reference/parallel.h"
#include "server/model/reference/products.h"

namespace penstock {
namespace {

constexpr std::int64_t kRowsPerPiece = 16;
// Elements that are combined in the time that waking a thread takes.
constexpr std::int64_t kSerialElements = 1 << 14;

}  // namespace

FeedForward::FeedForward(const ModelConfig& config, Element element)
    : config_(config), element_(element) {}

void FeedForward::Dense(const MlpWeights& weights, const void* x, std::int64_t rows, void* y) {
  const std::int64_t width = weights.gate.shape[0];
  void* hidden = hidden_.Bytes(rows * width * static_cast<std::int64_t>(SizeOf(element_)));
  RunGatedProducts({{Product(element_, x, rows, weights.gate, hidden), weights.up.bytes.data()}},
                   workers_);
  RunProducts({Product(element_, hidden, rows, weights.down, y)});
}

void FeedForward::SortByExpert(std::int64_t rows) {
  const std::int64_t slots = rows * config_.top_k;
  starts_.assign(static_cast<std::size_t>(config_.experts) + 1, 0);
  for (std::int64_t i = 0; i < slots; ++i)
    ++starts_[static_cast<std::size_t>(routed_.experts[i]) + 1];
  for (std::size_t e = 1; e < starts_.size(); ++e) starts_[e] += starts_[e - 1];
  slot_rows_.resize(static_cast<std::size_t>(slots));
  slots_.resize(static_cast<std::size_t>(slots));
  std::vector<std::int32_t> next(starts_.begin(), starts_.end() - 1);
  for (std::int64_t i = 0; i < slots; ++i) {
    const std::int32_t slot = next[static_cast<std::size_t>(routed_.experts[i])]++;
    slots_[static_cast<std::size_t>(i)] = slot;
    slot_rows_[static_cast<std::size_t>(slot)] = static_cast<std::int32_t>(i / config_.top_k);
  }
}

void FeedForward::Sparse(const SparseMlpWeights& weights, int layer, int sparse,
                         const StepBatch& batch, const void* x, void* y, StepRouting& routing,
                         bool keep) {
  Route(layer, sparse, batch, x, routing);
  SortByExpert(batch.rows);
  if (keep) routing.layers[static_cast<std::size_t>(sparse)] = routed_;

  const auto size = static_cast<std::int64_t>(SizeOf(element_));
  const std::int64_t rows = batch.rows, slots = rows * config_.top_k,
                     width = config_.moe_intermediate_size;
  const std::int64_t shared_width = config_.shared_intermediate_size, d = config_.hidden_size;
  auto* hidden = static_cast<std::byte*>(hidden_.Bytes(slots * width * size));
  auto* out = static_cast<std::byte*>(expert_out_.Bytes(slots * d * size));
  void* shared_hidden = shared_hidden_.Bytes(rows * shared_width * size);
  void* shared_out = shared_out_.Bytes(rows * d * size);
  void* shared_gate = shared_gate_.Bytes(rows * size);

  const MlpWeights& shared = weights.shared_expert;
  std::vector<GatedProduct> gated = {
      {Product(element_, x, rows, shared.gate, shared_hidden), shared.up.bytes.data()}};
  std::vector<MatMulArgs> down = {
      Product(element_, shared_hidden, rows, shared.down, shared_out),
      Product(element_, x, rows, weights.shared_expert_gate, shared_gate)};
  for (std::int64_t e = 0; e < config_.experts; ++e) {
    const std::int64_t start = starts_[static_cast<std::size_t>(e)];
    const std::int64_t count = starts_[static_cast<std::size_t>(e) + 1] - start;
    if (count == 0) continue;
    const MlpWeights& expert = weights.experts[static_cast<std::size_t>(e)];
    MatMulArgs gate = Product(element_, x, count, expert.gate, hidden + start * width * size);
    gate.rows = slot_rows_.data() + start;
    gated.push_back({gate, expert.up.bytes.data()});
    down.push_back(Product(element_, hidden + start * width * size, count, expert.down,
                           out + start * d * size));
  }
  RunGatedProducts(gated, workers_);
  RunProducts(down);
  ++routing.expert_passes;

  const CombineArgs combine = {.element = element_,
                               .expert_output = out,
                               .slots = slots_.data(),
                               .weights = routed_.weights.data(),
                               .k = config_.top_k,
                               .shared_output = shared_out,
                               .shared_gate = shared_gate,
                               .y = y,
                               .d = d};
  ParallelFor((rows + kRowsPerPiece - 1) / kRowsPerPiece, rows * d < kSerialElements,
              [&](int, std::int64_t i) {
                CombineCpu(combine, i * kRowsPerPiece, std::min(rows, (i + 1) * kRowsPerPiece));
              });
}

}  // namespace penstock
