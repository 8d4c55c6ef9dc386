#include "server/experiments/guardrails/guardrail_watch.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace penstock {
namespace {

// Experts without a slot, or the busiest one's share over the mean; nullopt: too few slots.
std::optional<double> MeasureOf(bool idle, const std::vector<std::int64_t>& slots) {
  const std::int64_t total = std::accumulate(slots.begin(), slots.end(), std::int64_t{0});
  const auto experts = static_cast<std::int64_t>(slots.size());
  if (experts == 0 || total < kMinSlotsPerExpert * experts) return std::nullopt;
  if (idle) return static_cast<double>(std::count(slots.begin(), slots.end(), 0));
  const std::int64_t most = *std::max_element(slots.begin(), slots.end());
  return static_cast<double>(experts) * static_cast<double>(most) / static_cast<double>(total);
}

}  // namespace

bool Guardrails::Watch::OfRouting() const {
  return guardrail_.metric == "idle_experts" || guardrail_.metric == "imbalance";
}

void Guardrails::Watch::Add(const RequestOutcome& outcome, absl::Duration now) {
  const std::string& metric = guardrail_.metric;
  if (metric == "paired_logprob") return;
  Sums& sums = window_.At(now);
  ++sums.requests;
  if (metric == "error_rate") {
    sums.numerator += outcome.failed() ? 1 : 0;
    ++sums.denominator;
  } else if (metric == "non_finite_logits") {
    sums.numerator += outcome.non_finite_logits ? 1 : 0;
  } else if (metric == "repetition") {
    sums.numerator += outcome.repeated_four_grams;
    sums.denominator += outcome.four_grams;
  } else if (metric == "inter_token_latency_p99") {
    for (const float gap : outcome.inter_token_gaps) sums.gaps.Add(gap);
  }
}

void Guardrails::Watch::AddPaired(double difference, absl::Duration now) {
  if (guardrail_.metric != "paired_logprob") return;
  Sums& sums = window_.At(now);
  ++sums.requests;
  ++sums.denominator;
  sums.numerator += difference;
}

void Guardrails::Watch::AddLoad(int layer, const std::vector<std::int64_t>& slots,
                                absl::Duration now) {
  if (!OfRouting()) return;
  std::vector<std::int64_t>& sums = window_.At(now).loads[layer];
  sums.resize(slots.size());
  for (std::size_t e = 0; e < slots.size(); ++e) sums[e] += slots[e];
}

std::optional<double> Guardrails::Watch::ValueOf(const Sums& sums) const {
  if (guardrail_.metric == "non_finite_logits") return sums.numerator;
  if (sums.requests < guardrail_.min_requests) return std::nullopt;
  if (guardrail_.metric == "inter_token_latency_p99") return sums.gaps.Quantile(0.99);
  if (OfRouting()) {
    std::optional<double> worst;
    for (const auto& [layer, slots] : sums.loads) {
      const auto value = MeasureOf(guardrail_.metric == "idle_experts", slots);
      if (value && (!worst || *value > *worst)) worst = value;
    }
    return worst;
  }
  if (sums.denominator == 0) return std::nullopt;
  return sums.numerator / sums.denominator;
}

GuardrailReading Guardrails::Watch::Read(absl::Duration now) const {
  Sums total;
  window_.ForEach(now, [&total](const Sums& sums) {
    total.requests += sums.requests;
    total.numerator += sums.numerator;
    total.denominator += sums.denominator;
    total.gaps.Merge(sums.gaps);
    for (const auto& [layer, slots] : sums.loads) {
      std::vector<std::int64_t>& into = total.loads[layer];
      into.resize(std::max(into.size(), slots.size()));
      for (std::size_t e = 0; e < slots.size(); ++e) into[e] += slots[e];
    }
  });
  return {.arm = {}, .requests = total.requests, .value = ValueOf(total)};
}

std::optional<GuardrailBreach> Guardrails::Watch::Check(absl::Duration now) const {
  const GuardrailReading reading = Read(now);
  if (!reading.value) return std::nullopt;
  const bool upper = guardrail_.max.has_value();
  const double bound = upper ? *guardrail_.max : *guardrail_.min;
  // So written that a value that is no number is a breach too.
  if (upper ? *reading.value <= bound : *reading.value >= bound) return std::nullopt;
  GuardrailBreach breach;
  breach.metric = guardrail_.metric;
  breach.value = *reading.value;
  breach.bound = bound;
  breach.reason =
      absl::StrFormat("%s is %g, %s %g is allowed, over %d %s of the last %s", guardrail_.metric,
                      breach.value, upper ? "at most" : "at least", bound, reading.requests,
                      guardrail_.metric == "paired_logprob" ? "texts" : "requests",
                      absl::FormatDuration(guardrail_.window));
  return breach;
}

}  // namespace penstock
