// Samples in, Prometheus' text format out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "prometheus/histogram.h"
#include "prometheus/metric_family.h"
#include "server/telemetry/metrics.h"

namespace penstock {

using MetricLabels = std::vector<std::pair<std::string_view, std::string>>;

// One scrape. Families appear in the order of their first sample; one without samples does not
// appear. Not thread-safe.
class Exposition {
 public:
  void Add(const Metric& metric, const MetricLabels& labels, double value);
  void Add(const Metric& metric, const MetricLabels& labels, const prometheus::Histogram& value);
  // A histogram from its cumulative counts; the last bound, infinity, is added.
  void Add(const Metric& metric, const MetricLabels& labels,
           const std::vector<std::pair<double, std::int64_t>>& at_most, std::int64_t count,
           double sum);

  // "text/plain; version=0.0.4"
  std::string Text() const;

 private:
  prometheus::ClientMetric& NewSample(const Metric& metric, const MetricLabels& labels);

  std::vector<prometheus::MetricFamily> families_;
  std::unordered_map<const char*, std::size_t> positions_;  // Metric::name -> in families_
};

}  // namespace penstock
