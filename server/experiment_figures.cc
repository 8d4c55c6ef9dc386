#include "server/experiment_figures.h"

#include <cmath>
#include <set>
#include <utility>

#include "server/telemetry/router_series.h"

namespace penstock {
namespace {

// The buckets of the router's own series of the same kind.
const prometheus::Histogram::BucketBoundaries& BucketsOf(std::string_view metric) {
  if (metric == "ttft") return QueueLatencyBuckets();
  if (metric == "inter_token_latency") return ShortLatencyBuckets();
  return RequestLatencyBuckets();
}

void AddTraffic(const ArmSnapshot& arm, ExperimentFigures* figures) {
  const ArmTotals& totals = arm.totals;
  for (int i = 0; i < kQuantities; ++i) {
    const auto quantity = static_cast<Quantity>(i);
    figures->traffic.push_back({arm.name, std::string(Name(quantity)), totals.sums[quantity]});
  }
  for (const auto& [quantity, sum] :
       {std::pair<const char*, std::int64_t>{kPromptTokens, totals.prompt_tokens},
        {kCancelled, totals.cancelled},
        {kLeftOut, totals.left_out},
        {kTextsScored, totals.texts.scored},
        {kTextsDropped, totals.texts.dropped},
        {kTextTokens, totals.texts.tokens}}) {
    figures->traffic.push_back({arm.name, quantity, static_cast<double>(sum)});
  }
  figures->unique_units.push_back({arm.name, totals.units.Estimate()});
  const auto durations = [&](const char* metric, const QuantileSketch& sketch, double sum) {
    ExperimentFigures::Durations& entry = figures->durations.emplace_back();
    entry.arm = arm.name;
    entry.metric = metric;
    entry.count = sketch.count();
    entry.sum = sum;
    for (const double bound : BucketsOf(metric)) {
      entry.at_most.emplace_back(bound, sketch.CountUpTo(bound));
    }
  };
  durations("ttft", totals.first_token, totals.sums[Quantity::kFirstTokenSeconds]);
  durations("inter_token_latency", totals.gaps, totals.sums[Quantity::kGapSeconds]);
  durations("latency", totals.latency, totals.sums[Quantity::kLatencySeconds]);
}

}  // namespace

ExperimentFigures FiguresOf(const LedgerSnapshot& snapshot, double sample_ratio_p_value) {
  ExperimentFigures figures;
  figures.experiment = snapshot.experiment;
  figures.revision = snapshot.revision;
  figures.sample_ratio_p_value = sample_ratio_p_value;
  figures.since = snapshot.since;
  figures.period = snapshot.period;
  figures.windows = {{"unit", absl::ToDoubleSeconds(snapshot.windows.unit)},
                     {"outcome", absl::ToDoubleSeconds(snapshot.windows.outcome)},
                     {"burn_in", absl::ToDoubleSeconds(snapshot.windows.burn_in)}};
  figures.measured = std::ldexp(1.0, -snapshot.sample_level);
  // A request is on one replica, whatever else is.
  if (snapshot.unit != UnitKind::kRequest) figures.unit_sample = snapshot.unit_sample.smallest();
  for (const ArmSnapshot& arm : snapshot.arms) {
    AddTraffic(arm, &figures);
    figures.first_exposures.push_back({arm.name, arm.entered.first_exposures});
    std::set<std::string> told;
    const auto add = [&](const std::string& metric, const UnitSums& sums,
                         const std::string& denominator) {
      if (sums.units == 0) return;
      if (told.insert(metric).second) {
        figures.sums.push_back(
            {arm.name, metric, sums.units, sums.sum, sums.sum_squares,
             denominator.empty() ? std::nullopt : std::optional<double>(sums.cross_sum)});
      }
      if (!denominator.empty() && told.insert(denominator).second) {
        figures.sums.push_back({arm.name, denominator, sums.units, sums.denominator_sum,
                                sums.denominator_sum_squares, std::nullopt});
      }
    };
    for (std::size_t m = 0; m < MetricDefinitions().size(); ++m) {
      const MetricDefinition& metric = MetricDefinitions()[m];
      if (metric.of_router && !snapshot.switchback) continue;
      add(std::string(metric.name), arm.entered.metrics[m].Sums(),
          metric.denominator ? std::string(Name(*metric.denominator)) : "");
    }
    add(std::string(kPairedMetric), arm.entered.paired.Sums(), kPairedTokens);
    add(kPairedTexts, arm.entered.texts.Sums(), "");
    for (std::size_t i = 0; i < snapshot.outcomes.size(); ++i) {
      add(std::string(kOutcomePrefix) + snapshot.outcomes[i], arm.entered.outcomes[i].Sums(), "");
    }
  }
  return figures;
}

}  // namespace penstock
