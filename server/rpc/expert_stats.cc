#include "server/rpc/expert_stats.h"

#include <cmath>

namespace penstock {
namespace {

void SetMeasures(const ExpertMeasures& measures, std::size_t num_experts, v1::LayerStats* proto) {
  proto->set_entropy_nats(measures.entropy_ratio * std::log(static_cast<double>(num_experts)));
  proto->set_entropy_ratio(measures.entropy_ratio);
  proto->set_load_entropy_ratio(measures.load_entropy_ratio);
  proto->set_imbalance_ratio(measures.imbalance_ratio);
  proto->set_load_cv(measures.load_cv);
  proto->set_utilization_ratio(measures.utilization_ratio);
  proto->set_idle_experts(static_cast<int>(measures.idle));
  proto->set_topk_mass_ratio(measures.topk_mass_ratio);
}

}  // namespace

v1::RouterStats ToProto(const RouterExpertStats& stats) {
  v1::RouterStats proto;
  proto.set_router(stats.router);
  // Every token passes every layer once.
  if (!stats.layers.empty()) proto.set_tokens(stats.layers.front().rows);
  for (const LayerExpertStats& layer : stats.layers) {
    v1::LayerStats* const to = proto.add_layers();
    to->set_layer(layer.layer);
    to->mutable_expert_tokens()->Add(layer.slots.begin(), layer.slots.end());
    to->set_window_tokens(layer.window_rows);
    if (layer.window) SetMeasures(*layer.window, layer.slots.size(), to);
  }
  return proto;
}

}  // namespace penstock
