// What a run did, read from the server's /metrics before and after it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "clients/cpp/cli/metrics_page.h"

namespace penstock::client {

// Unset: the page doesn't say. Counters and histograms are differences of the two pages; measures
// are gauges of the second one (server's window: 60 s), meant over layers.
struct RouterFigures {
  std::string router;
  std::optional<double> tokens;             // generated
  std::optional<double> tokens_per_second;  // of one answer: 1 / mean inter-token latency
  std::optional<double> first_token_seconds;
  std::optional<double> entropy_ratio;    // of the router's probabilities, 1: uniform
  std::optional<double> imbalance_ratio;  // busiest expert against the mean
  std::optional<double> idle_experts;
};

struct StepFigures {
  double steps = 0;
  // Steps that held rows of at least so many distinct routers; unset where the histogram's buckets
  // can't tell.
  std::optional<double> steps_with_all;
  // Grouped expert products per step, over all layers.
  std::optional<double> expert_passes_per_step;
};

RouterFigures ReadRouterFigures(const MetricsPage& before, const MetricsPage& after,
                                const std::string& router);

StepFigures ReadStepFigures(const MetricsPage& before, const MetricsPage& after, int routers);

// Rows as in `figures`.
std::string RouterFiguresTable(const std::vector<RouterFigures>& figures);

// /metrics/experts against /metrics: each token that a router routed takes k slots in every sparse
// layer.
struct SlotCheck {
  int layers = 0;  // (router, layer) pairs on the page
  int exact = 0;   // of them, those whose slots sum to k × the router's tokens
};
SlotCheck CheckSlots(const MetricsPage& metrics, const MetricsPage& experts,
                     const std::vector<std::string>& routers, int experts_per_token);

}  // namespace penstock::client
