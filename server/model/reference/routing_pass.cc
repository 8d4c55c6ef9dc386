// FeedForward's routing: each router on its own rows, and the counts of what it decided.
#include <algorithm>
#include <cstring>
#include <ctime>

#include "ATen/core/Tensor.h"
#include "ATen/ops/empty.h"
#include "ATen/ops/from_blob.h"
#include "c10/core/InferenceMode.h"
#include "kernels/entropy.h"
#include "routers/router.h"
#include "routers/routing.h"
#include "server/base/check.h"
#include "server/model/reference/feed_forward.h"
#include "server/model/reference/parallel.h"

namespace penstock {
namespace {

absl::Duration ThreadTime() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return absl::DurationFromTimespec(time);
}

at::ScalarType TorchType(Element element) {
  if (element == Element::kBF16) return at::kBFloat16;
  return element == Element::kF16 ? at::kHalf : at::kFloat;
}

}  // namespace

// Runs router `group` on its rows; `gathered` holds them, unless they are all there are.
Routing FeedForward::Decide(int sparse, const StepBatch& batch, const RouterRows& group,
                            const void* x, Scratch& gathered) const {
  const c10::InferenceMode inference;  // a thread's own
  const std::int64_t d = config_.hidden_size;
  const auto count = static_cast<std::int64_t>(group.rows.size());
  const void* hidden = x;
  if (count != batch.rows) {
    const std::int64_t row_bytes = d * static_cast<std::int64_t>(SizeOf(element_));
    auto* to = static_cast<std::byte*>(gathered.Bytes(count * row_bytes));
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t row = group.rows[static_cast<std::size_t>(i)];
      std::memcpy(to + i * row_bytes, static_cast<const std::byte*>(x) + row * row_bytes,
                  static_cast<std::size_t>(row_bytes));
    }
    hidden = to;
  }
  at::Tensor tokens = at::empty({count}, at::kLong);
  for (std::int64_t i = 0; i < count; ++i) {
    tokens.mutable_data_ptr<std::int64_t>()[i] =
        batch.tokens[static_cast<std::size_t>(group.rows[static_cast<std::size_t>(i)])];
  }
  const at::Tensor rows = at::from_blob(const_cast<void*>(hidden), {count, d},
                                        at::TensorOptions().dtype(TorchType(element_)));
  Routing decided = group.router->router->Route(sparse, rows, tokens);
  return {.experts = decided.experts.contiguous(),
          .weights = decided.weights.contiguous(),
          .probabilities = decided.probabilities.contiguous(),
          .finite = decided.finite.contiguous(),
          .logits = decided.logits.defined() ? decided.logits.contiguous() : at::Tensor()};
}

void FeedForward::Route(int layer, int sparse, const StepBatch& batch, const void* x,
                        StepRouting& routing) {
  const std::int64_t k = config_.top_k;
  routed_.experts.resize(static_cast<std::size_t>(batch.rows * k));
  routed_.weights.resize(static_cast<std::size_t>(batch.rows * k));
  gathered_.resize(std::max(gathered_.size(), static_cast<std::size_t>(MaxWorkers())));
  std::size_t largest = 0;
  for (const RouterRows& group : batch.routers) largest = std::max(largest, group.rows.size());
  // Routers of many rows share their own products out over all threads; of few, a thread takes a
  // router.
  std::vector<Routing> decisions(batch.routers.size());
  ParallelFor(static_cast<std::int64_t>(decisions.size()), largest >= kManyRouterRows,
              [&](int worker, std::int64_t i) {
                const auto g = static_cast<std::size_t>(i);
                const absl::Duration before = ThreadTime();
                decisions[g] = Decide(sparse, batch, batch.routers[g], x,
                                      gathered_[static_cast<std::size_t>(worker)]);
                routing.router_time[g] += ThreadTime() - before;
              });
  for (std::size_t g = 0; g < batch.routers.size(); ++g) {
    const RouterRows& group = batch.routers[g];
    const auto count = static_cast<std::int64_t>(group.rows.size());
    const at::Tensor &experts = decisions[g].experts, &weights = decisions[g].weights;
    const at::Tensor &probabilities = decisions[g].probabilities, &finite = decisions[g].finite;
    PENSTOCK_CHECK(experts.numel() == count * k && weights.numel() == count * k &&
                   probabilities.numel() == count * config_.experts && finite.numel() == count)
        << "router " << group.router->name << " answered " << experts.numel() << " experts for "
        << count << " rows";
    for (std::int64_t i = 0; i < count; ++i) {
      const auto row = static_cast<std::size_t>(group.rows[static_cast<std::size_t>(i)]);
      std::copy_n(experts.const_data_ptr<std::int32_t>() + i * k, k,
                  routed_.experts.data() + row * k);
      for (std::int64_t rank = 0; rank < k; ++rank) {
        const std::int32_t expert = routed_.experts[row * k + rank];
        PENSTOCK_CHECK(expert >= 0 && expert < config_.experts) << "router " << group.router->name;
      }
      std::copy_n(weights.const_data_ptr<float>() + i * k, k, routed_.weights.data() + row * k);
      if (!finite.const_data_ptr<bool>()[i] && !routing.failed[row]) {
        routing.failed[row] = 1;
        routing.failed_at[row] = layer;
      }
    }
    if (group.counted_rows == 0) continue;
    RoutingCounts counts;
    counts.router = group.router->name;
    counts.layer = layer;
    counts.slots.resize(static_cast<std::size_t>(config_.experts));
    Count(batch, group, probabilities.const_data_ptr<float>(), routing, counts);
    routing.counts.push_back(std::move(counts));
  }
  if (!batch.shadows.empty()) CountShadows(layer, sparse, batch, x, decisions, routing);
}

// Rows whose request fails leave the counts from the layer on where they did.
void FeedForward::Count(const StepBatch& batch, const RouterRows& group, const float* probabilities,
                        const StepRouting& routing, RoutingCounts& counts) const {
  const std::int64_t k = config_.top_k;
  for (std::size_t i = 0; i < group.rows.size(); ++i) {
    const auto row = static_cast<std::size_t>(group.rows[i]);
    if (!batch.counted[row] || routing.failed[row]) continue;
    const float* p = probabilities + static_cast<std::int64_t>(i) * config_.experts;
    ++counts.rows;
    counts.entropy += EntropyCpu(p, config_.experts);
    for (std::int64_t rank = 0; rank < k; ++rank) {
      const std::int32_t expert = routed_.experts[row * k + rank];
      ++counts.slots[static_cast<std::size_t>(expert)];
      // Unless they were divided by their sum, the weights are the chosen probabilities, for every
      // kind: `hash` shows its calibrated mass there only.
      counts.topk_mass += config_.norm_topk_prob ? p[expert] : routed_.weights[row * k + rank];
    }
  }
}

}  // namespace penstock
