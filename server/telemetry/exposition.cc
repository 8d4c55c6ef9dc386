#include "server/telemetry/exposition.h"

#include <limits>

#include "prometheus/text_serializer.h"

namespace penstock {

prometheus::ClientMetric& Exposition::NewSample(const Metric& metric, const MetricLabels& labels) {
  const auto [position, is_new] = positions_.emplace(metric.name, families_.size());
  if (is_new) {
    families_.push_back(
        {.name = metric.name, .help = metric.help, .type = metric.type, .metric = {}});
  }
  prometheus::ClientMetric& sample = families_[position->second].metric.emplace_back();
  sample.label.reserve(labels.size());
  for (const auto& [name, value] : labels) {
    sample.label.push_back({.name = std::string(name), .value = value});
  }
  return sample;
}

void Exposition::Add(const Metric& metric, const MetricLabels& labels, double value) {
  prometheus::ClientMetric& sample = NewSample(metric, labels);
  if (metric.type == prometheus::MetricType::Counter) {
    sample.counter.value = value;
  } else if (metric.type == prometheus::MetricType::Untyped) {
    sample.untyped.value = value;
  } else {
    sample.gauge.value = value;
  }
}

void Exposition::Add(const Metric& metric, const MetricLabels& labels,
                     const prometheus::Histogram& value) {
  NewSample(metric, labels).histogram = value.Collect().histogram;
}

void Exposition::Add(const Metric& metric, const MetricLabels& labels,
                     const std::vector<std::pair<double, std::int64_t>>& at_most,
                     std::int64_t count, double sum) {
  prometheus::ClientMetric::Histogram& histogram = NewSample(metric, labels).histogram;
  histogram.sample_count = static_cast<std::uint64_t>(count);
  histogram.sample_sum = sum;
  for (const auto& [bound, up_to] : at_most) {
    histogram.bucket.push_back(
        {.cumulative_count = static_cast<std::uint64_t>(up_to), .upper_bound = bound});
  }
  histogram.bucket.push_back({.cumulative_count = histogram.sample_count,
                              .upper_bound = std::numeric_limits<double>::infinity()});
}

std::string Exposition::Text() const { return prometheus::TextSerializer().Serialize(families_); }

}  // namespace penstock
