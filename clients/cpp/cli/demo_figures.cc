#include "clients/cpp/cli/demo_figures.h"

#include <cstdlib>
#include <limits>

#include "clients/cpp/terminal/table.h"

namespace penstock::client {
namespace {

std::optional<double> Difference(const MetricsPage& before, const MetricsPage& after,
                                 const std::string& name, const Labels& labels) {
  const std::optional<double> now = after.Sum(name, labels);
  if (!now) return std::nullopt;
  return *now - before.Sum(name, labels).value_or(0);
}

// Of what a histogram observed between the pages.
std::optional<double> HistogramMean(const MetricsPage& before, const MetricsPage& after,
                                    const std::string& name, const Labels& labels) {
  const auto count = Difference(before, after, name + "_count", labels);
  const auto sum = Difference(before, after, name + "_sum", labels);
  if (!count || !sum || *count <= 0) return std::nullopt;
  return *sum / *count;
}

std::string Cell(const std::optional<double>& value, int decimals) {
  return Fixed(value.value_or(std::numeric_limits<double>::quiet_NaN()), decimals);
}

}  // namespace

RouterFigures ReadRouterFigures(const MetricsPage& before, const MetricsPage& after,
                                const std::string& router) {
  const Labels labels = {{"router", router}};
  RouterFigures figures;
  figures.router = router;
  figures.tokens = Difference(before, after, "penstock_generated_tokens_total", labels);
  const auto gap = HistogramMean(before, after, "penstock_inter_token_latency_seconds", labels);
  if (gap && *gap > 0) figures.tokens_per_second = 1 / *gap;
  figures.first_token_seconds =
      HistogramMean(before, after, "penstock_time_to_first_token_seconds", labels);
  figures.entropy_ratio = after.Mean("penstock_router_entropy_ratio", labels);
  figures.imbalance_ratio = after.Mean("penstock_expert_imbalance_ratio", labels);
  figures.idle_experts = after.Mean("penstock_experts_idle", labels);
  return figures;
}

StepFigures ReadStepFigures(const MetricsPage& before, const MetricsPage& after, int routers) {
  StepFigures figures;
  figures.steps = Difference(before, after, "penstock_step_routers_count", {}).value_or(0);
  // Buckets are cumulative: what isn't in "at most N − 1" held N or more.
  for (const std::string& bound : after.LabelValues("penstock_step_routers_bucket", "le")) {
    if (bound.empty() || std::atof(bound.c_str()) != routers - 1) continue;
    const auto fewer = Difference(before, after, "penstock_step_routers_bucket", {{"le", bound}});
    if (fewer) figures.steps_with_all = figures.steps - *fewer;
  }
  if (routers == 1) figures.steps_with_all = figures.steps;
  const auto passes = Difference(before, after, "penstock_expert_passes_total", {});
  if (passes && figures.steps > 0) figures.expert_passes_per_step = *passes / figures.steps;
  return figures;
}

std::string RouterFiguresTable(const std::vector<RouterFigures>& figures) {
  Table table({{"router", Align::kLeft},
               {"tokens"},
               {"tok/s"},
               {"first token ms"},
               {"entropy"},
               {"imbalance"},
               {"idle experts"}});
  for (const RouterFigures& one : figures) {
    std::optional<double> first = one.first_token_seconds;
    if (first) *first *= 1000;
    table.AddRow({one.router, Cell(one.tokens, 0), Cell(one.tokens_per_second, 1), Cell(first, 0),
                  Cell(one.entropy_ratio, 3), Cell(one.imbalance_ratio, 2),
                  Cell(one.idle_experts, 1)});
  }
  return table.ToString();
}

SlotCheck CheckSlots(const MetricsPage& metrics, const MetricsPage& experts,
                     const std::vector<std::string>& routers, int experts_per_token) {
  SlotCheck check;
  for (const std::string& router : routers) {
    const auto tokens = metrics.Sum("penstock_router_tokens_total", {{"router", router}});
    for (const std::string& layer : experts.LabelValues("penstock_expert_tokens_total", "layer")) {
      const auto slots =
          experts.Sum("penstock_expert_tokens_total", {{"router", router}, {"layer", layer}});
      if (!slots) continue;
      ++check.layers;
      if (tokens && *slots == experts_per_token * *tokens) ++check.exact;
    }
  }
  return check;
}

}  // namespace penstock::client
