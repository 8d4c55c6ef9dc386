#include "tests/server/experiments/report/simulated_alarms.h"

namespace penstock {

void LedgerAlarms::Merge(const LedgerAlarms& other) {
  for (const auto& [metric, count] : other.intervals) intervals[metric] += count;
  for (const auto& [metric, count] : other.measured) measured[metric] += count;
  verdicts += other.verdicts;
  secondary += other.secondary;
  sample_ratio += other.sample_ratio;
  judged += other.judged;
  halved += other.halved;
  requests += other.requests;
}

void Peeks::See(const ExperimentReport& report) {
  sample_ratio_ |= report.sample_ratio_alarm;
  halved_ |= report.sample_rate < 1;
  const ArmReport& treatment = report.arms.back();
  verdict_ |= treatment.verdict == Verdict::kBetter || treatment.verdict == Verdict::kWorse;
  for (const MetricReport& metric : treatment.metrics) {
    if (!metric.comparison) continue;
    judged_ |= metric.primary;
    measured_.insert(metric.metric);
    if (!metric.comparison->interval.Contains(0)) apart_.insert(metric.metric);
    secondary_ |= metric.adjusted_p && *metric.adjusted_p <= 0.05;
  }
}

void Peeks::AddTo(LedgerAlarms* alarms) const {
  // Metrics without an alarm are listed too.
  for (const std::string& metric : measured_) {
    ++alarms->measured[metric];
    alarms->intervals[metric] += apart_.contains(metric) ? 1 : 0;
  }
  alarms->halved += halved_;
  alarms->verdicts += verdict_;
  alarms->secondary += secondary_;
  alarms->sample_ratio += sample_ratio_;
  alarms->judged += judged_;
}

std::vector<std::uint32_t> SeedsOf(std::uint64_t seed, int experiments) {
  std::seed_seq seeds{seed, seed >> 32};
  std::vector<std::uint32_t> seed_of(static_cast<std::size_t>(experiments));
  seeds.generate(seed_of.begin(), seed_of.end());
  return seed_of;
}

}  // namespace penstock
