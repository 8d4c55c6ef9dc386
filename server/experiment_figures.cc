#include "server/experiment_figures.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/error.h"
#include "server/telemetry/metrics.h"

namespace penstock {
namespace {

constexpr char kPairedTokens[] = "paired_tokens";

// Σ over all replicas, by arm, metric and series.
class Sums {
 public:
  explicit Sums(const std::vector<ExperimentSample>& samples, const std::string& revision) {
    for (const ExperimentSample& sample : samples) {
      if (LabelOf(sample, "revision") != revision) continue;
      instances_.insert(LabelOf(sample, "instance"));
      if (sample.name == metrics::kAssignments.name && LabelOf(sample, "reason") == "halted") {
        continue;
      }
      sums_[{LabelOf(sample, "arm"), LabelOf(sample, "metric"), sample.name}] += sample.value;
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

  int replicas() const { return std::max(1, static_cast<int>(instances_.size())); }

 private:
  std::map<std::array<std::string, 3>, double> sums_;
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

}  // namespace

ExperimentFigures FiguresOf(const LedgerSnapshot& snapshot, double sample_ratio_p_value) {
  ExperimentFigures figures;
  figures.experiment = snapshot.experiment;
  figures.revision = snapshot.revision;
  figures.sample_ratio_p_value = sample_ratio_p_value;
  for (const ArmSnapshot& arm : snapshot.arms) {
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
    for (std::size_t i = 0; i < snapshot.outcomes.size(); ++i) {
      add(std::string(kOutcomePrefix) + snapshot.outcomes[i], arm.entered.outcomes[i].Sums(), "");
    }
  }
  return figures;
}

absl::StatusOr<LedgerSnapshot> GatherFigures(const std::vector<ExperimentSample>& samples,
                                             const Experiment& experiment,
                                             const std::vector<std::string>& outcomes,
                                             const std::string& revision) {
  const absl::StatusOr<std::string> chosen = RevisionOf(samples, experiment.name, revision);
  if (!chosen.ok()) return chosen.status();
  const Sums sums(samples, *chosen);
  LedgerSnapshot snapshot;
  snapshot.experiment = experiment.name;
  snapshot.revision = *chosen;
  snapshot.unit = experiment.unit;
  snapshot.switchback = experiment.switchback_slice.has_value();
  snapshot.control = experiment.control;
  snapshot.outcomes = outcomes;
  snapshot.replicas = sums.replicas();
  for (const Arm& configured : experiment.arms) {
    ArmSnapshot& arm = snapshot.arms.emplace_back();
    arm.name = configured.name;
    arm.router = configured.router;
    arm.share = configured.share;
    arm.totals.sums[Quantity::kRequests] = sums.Of(arm.name, "", metrics::kAssignments);
    arm.entered = arm.retired = ArmMoments(static_cast<int>(outcomes.size()));
    arm.entered.first_exposures = std::llround(sums.Of(arm.name, "", metrics::kFirstExposures));
    for (std::size_t m = 0; m < MetricDefinitions().size(); ++m) {
      const MetricDefinition& metric = MetricDefinitions()[m];
      arm.entered.metrics[m] =
          sums.Moments(arm.name, std::string(metric.name),
                       metric.denominator ? std::string(Name(*metric.denominator)) : "");
    }
    arm.entered.paired = sums.Moments(arm.name, std::string(kPairedMetric), kPairedTokens);
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
      arm.entered.outcomes[i] =
          sums.Moments(arm.name, std::string(kOutcomePrefix) + outcomes[i], "");
    }
  }
  std::sort(snapshot.arms.begin(), snapshot.arms.end(),
            [](const ArmSnapshot& a, const ArmSnapshot& b) { return a.name < b.name; });
  return snapshot;
}

}  // namespace penstock
