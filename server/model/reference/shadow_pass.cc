// FeedForward's shadow routing: what other routers would have decided for rows that are routed
// already.
#include <algorithm>
#include <chrono>
#include <exception>

#include "ATen/core/Tensor.h"
#include "kernels/divergence.h"
#include "kernels/entropy.h"
#include "routers/routing.h"
#include "server/base/log.h"
#include "server/model/reference/feed_forward.h"
#include "server/model/reference/parallel.h"

namespace penstock {
namespace {

// Where a row stands among its serving router's.
struct Place {
  std::size_t group = 0;
  std::int64_t index = 0;
};

std::vector<Place> PlacesOf(const StepBatch& batch) {
  std::vector<Place> places(static_cast<std::size_t>(batch.rows));
  for (std::size_t g = 0; g < batch.routers.size(); ++g) {
    const std::vector<std::int32_t>& rows = batch.routers[g].rows;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      places[static_cast<std::size_t>(rows[i])] = {g, static_cast<std::int64_t>(i)};
    }
  }
  return places;
}

std::int64_t Overlap(const std::int32_t* a, const std::int32_t* b, std::int64_t k) {
  std::int64_t both = 0;
  for (std::int64_t i = 0; i < k; ++i) both += std::find(b, b + k, a[i]) != b + k;
  return both;
}

// Adds what `shadow` decided for its row i to what `serving` decided for its row j.
void Add(const Routing& serving, std::int64_t j, const Routing& shadow, std::int64_t i,
         std::int64_t k, std::int64_t experts, ShadowCounts& counts) {
  if (!shadow.finite.const_data_ptr<bool>()[i]) {
    ++counts.failed;
    return;
  }
  ++counts.rows;
  const std::int32_t* chosen = shadow.experts.const_data_ptr<std::int32_t>() + i * k;
  counts.overlap += Overlap(serving.experts.const_data_ptr<std::int32_t>() + j * k, chosen, k);
  for (std::int64_t rank = 0; rank < k; ++rank) {
    ++counts.slots[static_cast<std::size_t>(chosen[rank])];
  }
  counts.entropy += EntropyCpu(shadow.probabilities.const_data_ptr<float>() + i * experts, experts);
  if (!serving.logits.defined() || !shadow.logits.defined()) return;
  ++counts.kl_rows;
  counts.kl += DivergenceCpu(serving.logits.const_data_ptr<float>() + j * experts,
                             shadow.logits.const_data_ptr<float>() + i * experts, experts);
}

}  // namespace

void FeedForward::CountShadows(int layer, int sparse, const StepBatch& batch, const void* x,
                               const std::vector<Routing>& decisions, StepRouting& routing) {
  const auto start = std::chrono::steady_clock::now();
  std::size_t largest = 0;
  for (const RouterRows& shadow : batch.shadows) largest = std::max(largest, shadow.rows.size());
  const std::vector<Place> places = PlacesOf(batch);
  // [shadows, routers]
  std::vector<std::vector<ShadowCounts>> counts(batch.shadows.size());
  try {
    ParallelFor(static_cast<std::int64_t>(batch.shadows.size()), largest >= kManyRouterRows,
                [&](int worker, std::int64_t s) {
                  const RouterRows& shadow = batch.shadows[static_cast<std::size_t>(s)];
                  const Routing decided =
                      Decide(sparse, batch, shadow, x, gathered_[static_cast<std::size_t>(worker)]);
                  std::vector<ShadowCounts>& own = counts[static_cast<std::size_t>(s)];
                  own.resize(batch.routers.size());
                  for (std::size_t g = 0; g < own.size(); ++g) {
                    own[g].router = batch.routers[g].router->name;
                    own[g].shadow = shadow.router->name;
                    own[g].layer = layer;
                    own[g].slots.resize(static_cast<std::size_t>(config_.experts));
                  }
                  for (std::size_t i = 0; i < shadow.rows.size(); ++i) {
                    const auto row = static_cast<std::size_t>(shadow.rows[i]);
                    if (routing.failed[row]) continue;
                    const Place& place = places[row];
                    Add(decisions[place.group], place.index, decided, static_cast<std::int64_t>(i),
                        config_.top_k, config_.experts, own[place.group]);
                  }
                });
    for (std::vector<ShadowCounts>& own : counts) {
      for (ShadowCounts& pair : own) {
        if (pair.rows + pair.failed > 0) routing.shadows.push_back(std::move(pair));
      }
    }
  } catch (const std::exception& error) {
    // The step must not fail for what only measures it.
    Log(LogLevel::kWarning, "shadow routing left out",
        {{"layer", std::int64_t{layer}}, {"error", std::string(error.what())}});
  }
  routing.shadow_time += absl::FromChrono(std::chrono::steady_clock::now() - start);
}

}  // namespace penstock
