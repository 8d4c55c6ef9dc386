#include "server/telemetry/shadow_series.h"

#include <algorithm>

#include "server/base/check.h"

namespace penstock {

ShadowSeries::ShadowSeries(const std::vector<int>& layers, int num_experts, int top_k)
    : layers_(layers),
      top_k_(top_k),
      experts_(layers, num_experts, top_k),
      buckets_(layers.size(), std::vector<Bucket>(ExpertLedger::kWindowSeconds)) {}

void ShadowSeries::Add(std::int64_t second, const ShadowCounts& counts) {
  experts_.Add(second, {.router = {},
                        .layer = counts.layer,
                        .rows = counts.rows,
                        .slots = counts.slots,
                        .entropy = counts.entropy,
                        .topk_mass = 0});
  const auto layer = static_cast<std::size_t>(
      std::lower_bound(layers_.begin(), layers_.end(), counts.layer) - layers_.begin());
  Bucket& bucket = buckets_[layer][static_cast<std::size_t>(second % ExpertLedger::kWindowSeconds)];
  if (bucket.second != second) bucket = {.second = second};
  bucket.rows += counts.rows;
  bucket.overlap += counts.overlap;
  bucket.kl_rows += counts.kl_rows;
  bucket.kl += counts.kl;
  if (layer == 0) rows_ += counts.rows;
  failed_rows_ += counts.failed;
}

std::vector<ShadowLayerMeasures> ShadowSeries::MeasuresAt(std::int64_t second) const {
  const std::vector<LayerExpertStats> loads = experts_.StatsAt(second);
  std::vector<ShadowLayerMeasures> measures;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    Bucket sum;
    for (const Bucket& bucket : buckets_[i]) {
      if (bucket.second <= second - ExpertLedger::kWindowSeconds) continue;
      sum.rows += bucket.rows;
      sum.overlap += bucket.overlap;
      sum.kl_rows += bucket.kl_rows;
      sum.kl += bucket.kl;
    }
    if (sum.rows == 0) continue;
    ShadowLayerMeasures& layer = measures.emplace_back();
    layer.layer = layers_[i];
    layer.overlap_ratio =
        static_cast<double>(sum.overlap) / (static_cast<double>(sum.rows) * top_k_);
    if (sum.kl_rows > 0) layer.kl = sum.kl / static_cast<double>(sum.kl_rows);
    layer.load = loads[i].window;
  }
  return measures;
}

void AddShadowMeans(const std::vector<ShadowLayerMeasures>& layers, const std::string& router,
                    const std::string& shadow, Exposition* exposition) {
  if (layers.empty()) return;
  const MetricLabels labels = {{"router", router}, {"shadow", shadow}};
  double overlap = 0, kl = 0;
  std::size_t with_kl = 0;
  for (const ShadowLayerMeasures& layer : layers) {
    overlap += layer.overlap_ratio;
    kl += layer.kl.value_or(0);
    with_kl += layer.kl.has_value();
  }
  exposition->Add(metrics::kShadowOverlap, labels, overlap / static_cast<double>(layers.size()));
  if (with_kl > 0) exposition->Add(metrics::kShadowKl, labels, kl / static_cast<double>(with_kl));
}

void AddShadowLayers(const std::vector<ShadowLayerMeasures>& layers, const std::string& router,
                     const std::string& shadow, Exposition* exposition) {
  for (const ShadowLayerMeasures& layer : layers) {
    const MetricLabels labels = {
        {"router", router}, {"shadow", shadow}, {"layer", std::to_string(layer.layer)}};
    exposition->Add(metrics::kShadowLayerOverlap, labels, layer.overlap_ratio);
    if (layer.kl) exposition->Add(metrics::kShadowLayerKl, labels, *layer.kl);
    if (!layer.load) continue;
    exposition->Add(metrics::kShadowLayerEntropy, labels, layer.load->entropy_ratio);
    exposition->Add(metrics::kShadowLayerLoadEntropy, labels, layer.load->load_entropy_ratio);
    exposition->Add(metrics::kShadowLayerImbalance, labels, layer.load->imbalance_ratio);
  }
}

}  // namespace penstock
