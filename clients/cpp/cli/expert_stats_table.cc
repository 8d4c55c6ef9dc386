#include "clients/cpp/cli/expert_stats_table.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "clients/cpp/terminal/table.h"

namespace penstock::client {
namespace {

constexpr int kExpertsPerRow = 10;

std::string Measure(bool is_set, double value) { return Fixed(is_set ? value : std::nan(""), 3); }

}  // namespace

std::string ExpertStatsTable(const v1::RouterStats& router) {
  Table table({{"layer"},
               {"tokens"},
               {"entropy"},
               {"load entropy"},
               {"imbalance"},
               {"load CV"},
               {"utilization"},
               {"idle"},
               {"top-k mass"}});
  for (const v1::LayerStats& layer : router.layers()) {
    table.AddRow({absl::StrCat(layer.layer()), Grouped(layer.window_tokens()),
                  Measure(layer.has_entropy_ratio(), layer.entropy_ratio()),
                  Measure(layer.has_load_entropy_ratio(), layer.load_entropy_ratio()),
                  Measure(layer.has_imbalance_ratio(), layer.imbalance_ratio()),
                  Measure(layer.has_load_cv(), layer.load_cv()),
                  Measure(layer.has_utilization_ratio(), layer.utilization_ratio()),
                  layer.has_idle_experts() ? absl::StrCat(layer.idle_experts()) : "–",
                  Measure(layer.has_topk_mass_ratio(), layer.topk_mass_ratio())});
  }
  return table.ToString();
}

std::string ExpertTokensTable(const v1::RouterStats& router) {
  std::vector<Table::Column> columns = {{"layer"}, {"experts"}};
  for (int i = 0; i < kExpertsPerRow; ++i) columns.push_back({absl::StrCat("+", i)});
  Table table(std::move(columns));
  for (const v1::LayerStats& layer : router.layers()) {
    for (int first = 0; first < layer.expert_tokens_size(); first += kExpertsPerRow) {
      const int end = std::min(first + kExpertsPerRow, layer.expert_tokens_size());
      std::vector<std::string> row = {absl::StrCat(layer.layer()),
                                      absl::StrCat(first, "–", end - 1)};
      for (int e = first; e < end; ++e) row.push_back(Grouped(layer.expert_tokens(e)));
      table.AddRow(std::move(row));
    }
  }
  return table.ToString();
}

}  // namespace penstock::client
