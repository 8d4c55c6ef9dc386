// What a unit's requests add up to, and the metrics that are made of it (experiments.md, What is
// measured per arm).
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string_view>

namespace penstock {

// Sums over one unit's requests. In seconds, nats and counts.
enum class Quantity {
  kRequests,           // that ended, in whatever way
  kErrors,             // that ended otherwise than by OK or by their caller's own cancellation
  kTokens,             // of answers
  kFirstTokens,        // requests that had one
  kFirstTokenSeconds,  // from arrival, over those
  kGaps,               // between two tokens of an answer
  kGapSeconds,
  kSuccesses,       // requests that ended OK
  kLatencySeconds,  // from arrival to end, over those
  kScoredTokens,    // emitted tokens with a log-probability
  kLogprob,         // Σ of raw log-softmax over those
  kNgrams,          // 4-grams of answers
  kRepeatedNgrams,  // that occurred earlier in the same answer
  // Of an arm's router, in a slice of time under `switchback`; no request's own.
  kRoutedRows,  // token rows that it routed
  kRouterSeconds,
  kMeasuredRows,  // that the measures below are of, each weighed by them
  kTokenEntropy,
  kLoadEntropy,
  kImbalance,
  kIdleExperts,
};
inline constexpr int kQuantities = static_cast<int>(Quantity::kIdleExperts) + 1;

// Names, as in metric labels: "requests", "first_token_seconds", …
std::string_view Name(Quantity quantity);

// One unit's sums.
class UnitValues {
 public:
  double& operator[](Quantity quantity) { return values_[static_cast<std::size_t>(quantity)]; }
  double operator[](Quantity quantity) const { return values_[static_cast<std::size_t>(quantity)]; }
  void Add(const UnitValues& other) {
    for (int i = 0; i < kQuantities; ++i) values_[i] += other.values_[i];
  }
  const std::array<double, kQuantities>& all() const { return values_; }
  std::array<double, kQuantities>& all() { return values_; }

 private:
  std::array<double, kQuantities> values_ = {};
};

// A ratio of two sums over units; without a denominator, a mean per unit.
struct MetricDefinition {
  std::string_view name;  // as in `primary.metric`
  Quantity numerator;
  std::optional<Quantity> denominator;
  std::string_view unit;   // "s", "nats", "" for counts and ratios
  bool of_router = false;  // known per slice of time, not per user
};

// In the order of reports. `paired_logprob` and `outcome.NAME` come beside them.
std::span<const MetricDefinition> MetricDefinitions();

// Index in MetricDefinitions(); nullopt: none of them.
std::optional<int> FindMetric(std::string_view name);

double NumeratorOf(const MetricDefinition& metric, const UnitValues& values);
double DenominatorOf(const MetricDefinition& metric, const UnitValues& values);

inline constexpr std::string_view kPairedMetric = "paired_logprob";
inline constexpr std::string_view kOutcomePrefix = "outcome.";

}  // namespace penstock
