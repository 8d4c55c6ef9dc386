// The feed-forward half of a layer: dense, or routed experts beside a shared one.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "kernels/element.h"
#include "server/model/checkpoint/checkpoint.h"
#include "server/model/reference/host_buffer.h"
#include "server/model/reference/step_batch.h"
#include "server/telemetry/events.h"

namespace penstock {

struct Routing;  // routers/routing.h: it holds tensors, this header does not

// What routers decided in one sparse layer.
struct LayerDecisions {
  std::vector<std::int32_t> experts;  // [rows, k]
  std::vector<float> weights;         // [rows, k], before rounding
};

// What a step's routing leaves behind.
struct StepRouting {
  std::vector<LayerDecisions> layers;   // [sparse layers]; kept only when a trace was asked for
  std::vector<char> failed;             // [rows]: a router logit was not finite
  std::vector<std::int32_t> failed_at;  // [rows]: index in model.layers where, first
  std::vector<RoutingCounts> counts;
  std::vector<absl::Duration> router_time;  // [batch.routers]: CPU time of routing
  int expert_passes = 0;
  std::vector<ShadowCounts> shadows;
  absl::Duration shadow_time;  // on the clock: every row of the step waits for it
};

// Rows of one router from which on its own products are worth sharing out.
inline constexpr std::size_t kManyRouterRows = 64;

class FeedForward {
 public:
  FeedForward(const ModelConfig& config, Element element);

  // y = MLP(x), both [rows, d].
  void Dense(const MlpWeights& weights, const void* x, std::int64_t rows, void* y);

  // y = experts(x) + shared expert(x), both [batch.rows, d]. `layer` is the index in model.layers,
  // `sparse` counts sparse ones. Every router routes its own rows; then one grouped pass computes
  // each expert once, over all of its rows.
  void Sparse(const SparseMlpWeights& weights, int layer, int sparse, const StepBatch& batch,
              const void* x, void* y, StepRouting& routing, bool keep);

 private:
  void Route(int layer, int sparse, const StepBatch& batch, const void* x, StepRouting& routing);
  Routing Decide(int sparse, const StepBatch& batch, const RouterRows& group, const void* x,
                 Scratch& gathered) const;
  void Count(const StepBatch& batch, const RouterRows& group, const float* probabilities,
             const StepRouting& routing, RoutingCounts& counts) const;
  // Counts what the step's shadows say of this layer's rows beside `decisions`, those of
  // batch.routers.
  void CountShadows(int layer, int sparse, const StepBatch& batch, const void* x,
                    const std::vector<Routing>& decisions, StepRouting& routing);
  void SortByExpert(std::int64_t rows);

  const ModelConfig& config_;
  const Element element_;
  LayerDecisions routed_;  // of the layer being computed
  std::vector<std::int32_t>
      starts_;  // [E + 1]: slots of expert e are starts_[e] … starts_[e + 1] − 1
  std::vector<std::int32_t> slot_rows_;  // [rows · k]: the row of each slot
  std::vector<std::int32_t> slots_;      // [rows, k]: the slot of each row and rank
  Scratch hidden_, shared_hidden_, expert_out_, shared_out_, shared_gate_;
  std::vector<Scratch> gathered_, workers_;  // [workers]
};

}  // namespace penstock
