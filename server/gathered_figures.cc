// Samples of experiments from many replicas, added up.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/experiment_figures.h"
#include "server/telemetry/metrics.h"

namespace penstock {
namespace {

constexpr char kDurationBuckets[] = "penstock_experiment_duration_seconds_bucket";

// Σ over all replicas, by arm, metric and series.
class Sums {
 public:
  explicit Sums(const std::vector<ExperimentSample>& samples, const std::string& revision) {
    for (const ExperimentSample& sample : samples) {
      if (LabelOf(sample, "revision") != revision) continue;
      const std::string instance = LabelOf(sample, "instance");
      instances_.insert(instance);
      if (sample.name == metrics::kUnitSample.name) {
        unit_samples_[instance].push_back(static_cast<std::uint64_t>(std::llround(sample.value)));
      } else if (sample.name == kDurationBuckets) {
        buckets_[{LabelOf(sample, "arm"), LabelOf(sample, "metric")}][UpperBound(sample)] +=
            sample.value;
      } else if (sample.name == metrics::kTraffic.name) {
        sums_[{LabelOf(sample, "arm"), LabelOf(sample, "quantity"), sample.name}] += sample.value;
      } else {
        sums_[{LabelOf(sample, "arm"), LabelOf(sample, "metric"), sample.name}] += sample.value;
      }
    }
  }

  static std::string LabelOf(const ExperimentSample& sample, const std::string& label) {
    const auto found = sample.labels.find(label);
    return found == sample.labels.end() ? "" : found->second;
  }

  double Of(const std::string& arm, const std::string& metric, const Metric& series) const {
    const auto found = sums_.find({arm, metric, series.name});
    return found == sums_.end() ? 0 : found->second;
  }

  UnitMoments Moments(const std::string& arm, const std::string& metric,
                      const std::string& denominator) const {
    UnitSums sums;
    sums.units = std::llround(Of(arm, metric, metrics::kMetricCount));
    sums.sum = Of(arm, metric, metrics::kMetricSum);
    sums.sum_squares = Of(arm, metric, metrics::kMetricSumSquares);
    if (denominator.empty()) {
      sums.denominator_sum = sums.denominator_sum_squares = static_cast<double>(sums.units);
      sums.cross_sum = sums.sum;
    } else {
      sums.denominator_sum = Of(arm, denominator, metrics::kMetricSum);
      sums.denominator_sum_squares = Of(arm, denominator, metrics::kMetricSumSquares);
      sums.cross_sum = Of(arm, metric, metrics::kMetricCrossSum);
    }
    return UnitMoments::FromSums(sums);
  }

  // Each count spread evenly over its bucket, as histogram_quantile takes it to be.
  QuantileSketch Durations(const std::string& arm, const std::string& metric) const {
    constexpr std::int64_t kPoints = 20;
    QuantileSketch sketch;
    const auto found = buckets_.find({arm, metric});
    if (found == buckets_.end()) return sketch;
    double lower = 0;
    std::int64_t below = 0;
    for (const auto& [bound, cumulative] : found->second) {
      const std::int64_t up_to = std::llround(cumulative);
      const std::int64_t count = std::max<std::int64_t>(0, up_to - below);
      // Of what is beyond the last bound nothing is known but that.
      const double upper = std::isfinite(bound) ? bound : lower;
      const std::int64_t points = std::min(count, kPoints);
      for (std::int64_t i = 0; i < points; ++i) {
        const double part = (static_cast<double>(i) + 0.5) / static_cast<double>(points);
        sketch.Add(lower + (upper - lower) * part, count * (i + 1) / points - count * i / points);
      }
      lower = upper;
      below = std::max(below, up_to);
    }
    return sketch;
  }

  SharedUnits CompareUnits() const {
    std::vector<std::vector<std::uint64_t>> samples;
    for (const auto& [instance, hashes] : unit_samples_) samples.push_back(hashes);
    return CompareSamples(samples);
  }

  int replicas() const { return std::max(1, static_cast<int>(instances_.size())); }

 private:
  static double UpperBound(const ExperimentSample& sample) {
    double bound = 0;
    const bool number = absl::SimpleAtod(LabelOf(sample, "le"), &bound);  // "+Inf" too
    return number ? bound : std::numeric_limits<double>::infinity();
  }

  std::map<std::array<std::string, 3>, double> sums_;
  std::map<std::pair<std::string, std::string>, std::map<double, double>> buckets_;  // cumulative
  std::map<std::string, std::vector<std::uint64_t>> unit_samples_;                   // by replica
  std::set<std::string> instances_;
};

absl::StatusOr<std::string> RevisionOf(const std::vector<ExperimentSample>& samples,
                                       const std::string& experiment, const std::string& wanted) {
  std::set<std::string> revisions;
  for (const ExperimentSample& sample : samples) {
    if (sample.name == metrics::kFirstExposures.name) {
      revisions.insert(Sums::LabelOf(sample, "revision"));
    }
  }
  if (!wanted.empty() && revisions.contains(wanted)) return wanted;
  if (revisions.empty() || !wanted.empty()) {
    return MakeError(absl::StatusCode::kNotFound,
                     absl::StrCat("no samples of experiment ", experiment,
                                  wanted.empty() ? "" : ", revision " + wanted,
                                  revisions.empty() ? std::string()
                                                    : absl::StrCat("; there is revision ",
                                                                   absl::StrJoin(revisions, ", "))),
                     {.reason = "NO_SAMPLES", .field = {}, .retry_after = {}});
  }
  if (revisions.size() > 1) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     absl::StrCat("the replicas run several revisions of ", experiment, ": ",
                                  absl::StrJoin(revisions, ", "), "; choose one (--revision)"),
                     {.reason = "REPLICAS_DIFFER", .field = "revision", .retry_after = {}});
  }
  return *revisions.begin();
}

// What was measured by one rule is not added to what was measured by another.
absl::Status CheckWindows(const std::vector<ExperimentSample>& samples,
                          const std::string& revision) {
  std::map<std::string, std::map<double, std::string>> windows;  // seconds, and where
  for (const ExperimentSample& sample : samples) {
    if (sample.name != metrics::kMeasuringWindow.name) continue;
    if (Sums::LabelOf(sample, "revision") != revision) continue;
    windows[Sums::LabelOf(sample, "window")].emplace(sample.value,
                                                     Sums::LabelOf(sample, "instance"));
  }
  for (const auto& [window, values] : windows) {
    if (values.size() < 2) continue;
    const std::string field = window == "burn_in" ? window : window + "_window";
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     absl::StrCat("the replicas measure with several values of ", field, ": ",
                                  absl::StrJoin(values, ", ",
                                                [](std::string* out, const auto& value) {
                                                  absl::StrAppend(out, value.first, " s on ",
                                                                  value.second);
                                                })),
                     {.reason = "REPLICAS_DIFFER", .field = field, .retry_after = {}});
  }
  return absl::OkStatus();
}

void AddTotals(const Sums& sums, ArmSnapshot* arm) {
  const auto of = [&](std::string_view quantity) {
    return sums.Of(arm->name, std::string(quantity), metrics::kTraffic);
  };
  for (int i = 0; i < kQuantities; ++i) {
    const auto quantity = static_cast<Quantity>(i);
    arm->totals.sums[quantity] = of(Name(quantity));
  }
  arm->totals.prompt_tokens = std::llround(of(kPromptTokens));
  arm->totals.cancelled = std::llround(of(kCancelled));
  arm->totals.left_out = std::llround(of(kLeftOut));
  arm->totals.texts = {.scored = std::llround(of(kTextsScored)),
                       .dropped = std::llround(of(kTextsDropped)),
                       .tokens = std::llround(of(kTextTokens))};
  arm->totals.first_token = sums.Durations(arm->name, "ttft");
  arm->totals.gaps = sums.Durations(arm->name, "inter_token_latency");
  arm->totals.latency = sums.Durations(arm->name, "latency");
}

// Since when, which period, and the share of the units: of the replica that says least.
void SetAnalysis(const std::vector<ExperimentSample>& samples, const std::string& revision,
                 LedgerSnapshot* snapshot) {
  snapshot->since = absl::InfiniteFuture();
  std::set<std::int64_t> periods;
  for (const ExperimentSample& sample : samples) {
    if (Sums::LabelOf(sample, "revision") != revision) continue;
    if (sample.name == metrics::kAnalysisStart.name) {
      snapshot->since =
          std::min(snapshot->since, absl::FromUnixMillis(std::llround(1000 * sample.value)));
    } else if (sample.name == metrics::kAnalysisPeriod.name) {
      periods.insert(std::llround(sample.value));
    } else if (sample.name == metrics::kUnitsMeasured.name && sample.value > 0) {
      snapshot->sample_level =
          std::max(snapshot->sample_level, static_cast<int>(std::lround(-std::log2(sample.value))));
    }
  }
  if (snapshot->since == absl::InfiniteFuture()) snapshot->since = absl::UnixEpoch();
  if (periods.empty()) return;
  snapshot->earliest_period = *periods.begin();
  snapshot->period = *periods.rbegin();
}

}  // namespace

absl::StatusOr<LedgerSnapshot> GatherFigures(const std::vector<ExperimentSample>& samples,
                                             const Experiment& experiment,
                                             const std::vector<std::string>& outcomes,
                                             const std::string& revision) {
  const absl::StatusOr<std::string> chosen = RevisionOf(samples, experiment.name, revision);
  if (!chosen.ok()) return chosen.status();
  PENSTOCK_RETURN_IF_ERROR(CheckWindows(samples, *chosen));
  const Sums sums(samples, *chosen);
  LedgerSnapshot snapshot;
  snapshot.experiment = experiment.name;
  snapshot.revision = *chosen;
  snapshot.unit = experiment.unit;
  snapshot.switchback = experiment.switchback_slice.has_value();
  snapshot.control = experiment.control;
  snapshot.outcomes = outcomes;
  snapshot.replicas = sums.replicas();
  snapshot.shared_units = sums.CompareUnits();
  SetAnalysis(samples, *chosen, &snapshot);
  for (const Arm& configured : experiment.arms) {
    ArmSnapshot& arm = snapshot.arms.emplace_back();
    arm.name = configured.name;
    arm.router = configured.router;
    arm.share = configured.share;
    AddTotals(sums, &arm);
    arm.unique_units =
        sums.Of(arm.name, "", metrics::kUniqueUnits) / snapshot.shared_units.replicas;
    arm.entered = arm.retired = ArmMoments(static_cast<int>(outcomes.size()));
    arm.entered.first_exposures = std::llround(sums.Of(arm.name, "", metrics::kFirstExposures));
    for (std::size_t m = 0; m < MetricDefinitions().size(); ++m) {
      const MetricDefinition& metric = MetricDefinitions()[m];
      arm.entered.metrics[m] =
          sums.Moments(arm.name, std::string(metric.name),
                       metric.denominator ? std::string(Name(*metric.denominator)) : "");
    }
    arm.entered.paired = sums.Moments(arm.name, std::string(kPairedMetric), kPairedTokens);
    arm.entered.texts = sums.Moments(arm.name, kPairedTexts, "");
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
      arm.entered.outcomes[i] =
          sums.Moments(arm.name, std::string(kOutcomePrefix) + outcomes[i], "");
    }
  }
  std::sort(snapshot.arms.begin(), snapshot.arms.end(),
            [](const ArmSnapshot& a, const ArmSnapshot& b) { return a.name < b.name; });
  return snapshot;
}

std::map<std::string, int> GatherHalts(const std::vector<ExperimentSample>& samples,
                                       const std::string& revision) {
  std::map<std::string, int> halts;
  for (const ExperimentSample& sample : samples) {
    if (sample.name != metrics::kArmHalted.name || sample.value == 0) continue;
    if (Sums::LabelOf(sample, "revision") == revision) ++halts[Sums::LabelOf(sample, "arm")];
  }
  return halts;
}

}  // namespace penstock
