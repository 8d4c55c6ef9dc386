#include "server/router_measures.h"

#include <numeric>

namespace penstock {
namespace {

// The mean of what is added, one a layer.
class LayerMean {
 public:
  void Add(const ExpertMeasures& layer) {
    ++layers_;
    sums_.token_entropy += layer.entropy_ratio;
    sums_.load_entropy += layer.load_entropy_ratio;
    sums_.imbalance += layer.imbalance_ratio;
    sums_.idle_experts += static_cast<double>(layer.idle);
  }

  std::optional<RouterMeasures> Get() const {
    if (layers_ == 0) return std::nullopt;
    return RouterMeasures{.token_entropy = sums_.token_entropy / layers_,
                          .load_entropy = sums_.load_entropy / layers_,
                          .imbalance = sums_.imbalance / layers_,
                          .idle_experts = sums_.idle_experts / layers_};
  }

 private:
  int layers_ = 0;
  RouterMeasures sums_;
};

}  // namespace

std::optional<RouterMeasures> MeasureRouter(std::span<const RoutedLayer> layers) {
  LayerMean mean;
  for (const RoutedLayer& layer : layers) {
    const std::int64_t slots =
        std::accumulate(layer.slots.begin(), layer.slots.end(), std::int64_t{0});
    if (layer.rows <= 0 || slots < layer.rows) continue;  // every row has an expert, or more
    mean.Add(ComputeExpertMeasures(
        {.rows = layer.rows, .slots = layer.slots, .entropy = layer.entropy, .topk_mass = 0},
        static_cast<int>(slots / layer.rows)));
  }
  return mean.Get();
}

std::optional<RouterMeasures> MeasuresLately(std::span<const LayerExpertStats> layers) {
  LayerMean mean;
  for (const LayerExpertStats& layer : layers) {
    if (layer.window) mean.Add(*layer.window);
  }
  return mean.Get();
}

std::vector<RoutedLayer> RoutingBetween(std::span<const LayerExpertStats> before,
                                        std::span<const LayerExpertStats> after) {
  if (before.size() != after.size()) return {};
  std::vector<RoutedLayer> routing;
  routing.reserve(after.size());
  for (std::size_t i = 0; i < after.size(); ++i) {
    const LayerExpertStats &from = before[i], &to = after[i];
    if (from.layer != to.layer || from.slots.size() != to.slots.size()) return {};
    RoutedLayer& layer = routing.emplace_back();
    layer.rows = to.rows - from.rows;
    layer.entropy = to.entropy - from.entropy;
    layer.slots.reserve(to.slots.size());
    for (std::size_t e = 0; e < to.slots.size(); ++e) {
      layer.slots.push_back(to.slots[e] - from.slots[e]);
      if (layer.slots.back() < 0) return {};
    }
  }
  return routing;
}

}  // namespace penstock
