// A page in Prometheus' text format 0.0.4, read back
// (https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format).
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace penstock::client {

using Labels = std::map<std::string, std::string>;

class MetricsPage {
 public:
  // INVALID_ARGUMENT names the first line that is none.
  static absl::StatusOr<MetricsPage> Parse(std::string_view text);

  // Over the series of `name` that have all of `labels`, whatever others they have; NaN values are
  // left out. nullopt: there is none.
  std::optional<double> Sum(const std::string& name, const Labels& labels = {}) const;
  std::optional<double> Mean(const std::string& name, const Labels& labels = {}) const;

  // The values of label `label` among the series of `name`, sorted, each once.
  std::vector<std::string> LabelValues(const std::string& name, const std::string& label) const;

 private:
  struct Series {
    Labels labels;
    double value = 0;
  };

  std::vector<double> Values(const std::string& name, const Labels& labels) const;

  std::map<std::string, std::vector<Series>> series_;
};

}  // namespace penstock::client
