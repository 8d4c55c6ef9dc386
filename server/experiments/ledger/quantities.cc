#include "server/experiments/ledger/quantities.h"

namespace penstock {
namespace {

constexpr std::array<std::string_view, kQuantities> kNames = {"requests",
                                                              "errors",
                                                              "tokens",
                                                              "first_tokens",
                                                              "first_token_seconds",
                                                              "gaps",
                                                              "gap_seconds",
                                                              "successes",
                                                              "latency_seconds",
                                                              "scored_tokens",
                                                              "logprob_nats",
                                                              "ngrams",
                                                              "repeated_ngrams",
                                                              "routed_rows",
                                                              "router_seconds",
                                                              "measured_rows",
                                                              "token_entropy_sum",
                                                              "load_entropy_sum",
                                                              "imbalance_sum",
                                                              "idle_experts_sum"};

constexpr MetricDefinition kMetrics[] = {
    {"requests", Quantity::kRequests, {}, ""},
    {"tokens", Quantity::kTokens, {}, ""},
    {"ttft", Quantity::kFirstTokenSeconds, Quantity::kFirstTokens, "s"},
    {"inter_token_latency", Quantity::kGapSeconds, Quantity::kGaps, "s"},
    {"latency", Quantity::kLatencySeconds, Quantity::kSuccesses, "s"},
    {"error_rate", Quantity::kErrors, Quantity::kRequests, ""},
    {"logprob", Quantity::kLogprob, Quantity::kScoredTokens, "nats"},
    {"repetition", Quantity::kRepeatedNgrams, Quantity::kNgrams, ""},
    {"router_gpu_time", Quantity::kRouterSeconds, Quantity::kRoutedRows, "s", true},
    {"token_entropy", Quantity::kTokenEntropy, Quantity::kMeasuredRows, "", true},
    {"load_entropy", Quantity::kLoadEntropy, Quantity::kMeasuredRows, "", true},
    {"imbalance", Quantity::kImbalance, Quantity::kMeasuredRows, "", true},
    {"idle_experts", Quantity::kIdleExperts, Quantity::kMeasuredRows, "", true},
};

}  // namespace

std::string_view Name(Quantity quantity) { return kNames[static_cast<std::size_t>(quantity)]; }

std::span<const MetricDefinition> MetricDefinitions() { return kMetrics; }

std::optional<int> FindMetric(std::string_view name) {
  for (int i = 0; i < static_cast<int>(std::size(kMetrics)); ++i) {
    if (kMetrics[i].name == name) return i;
  }
  return std::nullopt;
}

double NumeratorOf(const MetricDefinition& metric, const UnitValues& values) {
  return values[metric.numerator];
}

double DenominatorOf(const MetricDefinition& metric, const UnitValues& values) {
  return metric.denominator ? values[*metric.denominator] : 1;
}

}  // namespace penstock
