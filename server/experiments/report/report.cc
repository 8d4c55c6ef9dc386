#include "server/experiments/report/report.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/experiments/bucketing.h"
#include "server/experiments/report/words.h"
#include "server/experiments/statistics/holm.h"
#include "server/experiments/statistics/sample_ratio.h"

namespace penstock {
namespace {

// One metric as it lies in the snapshot.
struct Column {
  enum class Kind { kFixed, kOutcome, kPaired };
  std::string name, unit;
  Kind kind = Kind::kFixed;
  std::size_t index = 0;

  const UnitMoments& Of(const ArmSnapshot& arm) const {
    switch (kind) {
      case Kind::kFixed:
        return arm.entered.metrics[index];
      case Kind::kOutcome:
        return arm.entered.outcomes[index];
      case Kind::kPaired:
        break;
    }
    return arm.entered.paired;
  }
};

std::vector<Column> ColumnsOf(const LedgerSnapshot& snapshot, const std::string& primary) {
  std::vector<Column> columns;
  for (std::size_t i = 0; i < MetricDefinitions().size(); ++i) {
    const MetricDefinition& metric = MetricDefinitions()[i];
    columns.push_back(
        {std::string(metric.name), std::string(metric.unit), Column::Kind::kFixed, i});
  }
  columns.push_back({std::string(kPairedMetric), "nats", Column::Kind::kPaired, 0});
  for (std::size_t i = 0; i < snapshot.outcomes.size(); ++i) {
    columns.push_back({absl::StrCat(absl::string_view(kOutcomePrefix.data(), kOutcomePrefix.size()),
                                    snapshot.outcomes[i]),
                       "", Column::Kind::kOutcome, i});
  }
  std::stable_partition(columns.begin(), columns.end(),
                        [&](const Column& column) { return column.name == primary; });
  return columns;
}

const QuantileSketch* SketchOf(const std::string& metric, const ArmTotals& totals) {
  if (metric == "ttft") return &totals.first_token;
  if (metric == "inter_token_latency") return &totals.gaps;
  if (metric == "latency") return &totals.latency;
  return nullptr;
}

bool OfRouter(const Column& column) {
  return column.kind == Column::Kind::kFixed && MetricDefinitions()[column.index].of_router;
}

class ReportMaker {
 public:
  ReportMaker(const LedgerSnapshot& snapshot, const Question& question,
              const ReportOptions& options)
      : snapshot_(snapshot),
        unmeasured_(question.unmeasured),
        options_(options),
        columns_(ColumnsOf(snapshot, question.metric)),
        primary_({.alpha = options.alpha / std::max<double>(1, Treatments()),
                  .tuned_units = options.tuned_units}),
        secondary_({.alpha = options.alpha, .tuned_units = options.tuned_units}) {
    for (const ArmSnapshot& arm : snapshot.arms) {
      if (arm.name == snapshot.control) control_ = &arm;
    }
  }

  ArmReport MakeArm(const ArmSnapshot& arm) const {
    ArmReport report;
    report.name = arm.name;
    report.router = arm.router;
    report.share = arm.share;
    report.is_control = &arm == control_;
    report.requests = Count(arm.totals.sums[Quantity::kRequests]);
    report.errors = Count(arm.totals.sums[Quantity::kErrors]);
    report.tokens = Count(arm.totals.sums[Quantity::kTokens]);
    report.prompt_tokens = arm.totals.prompt_tokens;
    report.cancelled = arm.totals.cancelled;
    report.left_out = arm.totals.left_out;
    report.texts = arm.totals.texts;
    report.unique_units = arm.unique_units.value_or(arm.totals.units.Estimate());
    report.first_exposures = arm.entered.first_exposures;
    report.expected_exposures =
        static_cast<double>(snapshot_.first_exposures()) * arm.share / kBuckets;
    return report;
  }

  MetricReport MakeMetric(const Column& column, const ArmSnapshot& arm, bool primary) const {
    const UnitMoments& moments = column.Of(arm);
    MetricReport report;
    report.metric = column.name;
    report.unit = column.unit;
    report.primary = primary;
    report.units = moments.units();
    const auto estimate = moments.Estimate();
    if (estimate) report.value = estimate->value;
    if (OfRouter(column) && !snapshot_.switchback) {
      // Of the whole traffic: rows of a router belong to no unit.
      const MetricDefinition& metric = MetricDefinitions()[column.index];
      const double weight = DenominatorOf(metric, arm.totals.sums);
      if (weight > 0) report.value = NumeratorOf(metric, arm.totals.sums) / weight;
      report.units = 0;
    }
    if (const QuantileSketch* sketch = SketchOf(column.name, arm.totals)) {
      report.p50 = sketch->Quantile(0.5);
      report.p90 = sketch->Quantile(0.9);
      report.p99 = sketch->Quantile(0.99);
    }
    if (&arm == control_ || control_ == nullptr) return report;
    if (OfRouter(column) && !snapshot_.switchback) {
      report.note = "of the arm's router, not of its units: compared under mode switchback alone";
      return report;
    }
    if (options_.units_may_be_split) {
      report.note = "withheld: units may be split between replicas";
      return report;
    }
    const ConfidenceSequence& sequence = primary ? primary_ : secondary_;
    if (column.kind == Column::Kind::kPaired) {
      if (estimate) report.comparison = sequence.AgainstZero(*estimate);
    } else if (const auto control = column.Of(*control_).Estimate(); control && estimate) {
      report.comparison = sequence.Compare(*estimate, *control);
    }
    if (!report.comparison) {
      report.note = primary && !unmeasured_.empty() ? unmeasured_
                                                    : "too few units, or no variation among them";
    }
    return report;
  }

  const std::vector<Column>& columns() const { return columns_; }

 private:
  static std::int64_t Count(double sum) { return static_cast<std::int64_t>(std::llround(sum)); }
  double Treatments() const { return static_cast<double>(snapshot_.arms.size()) - 1; }

  const LedgerSnapshot& snapshot_;
  const std::string& unmeasured_;
  const ReportOptions& options_;
  const std::vector<Column> columns_;
  const ConfidenceSequence primary_, secondary_;
  const ArmSnapshot* control_ = nullptr;
};

void AdjustSecondary(ExperimentReport* report) {
  std::vector<MetricReport*> family;
  std::vector<double> p_values;
  for (ArmReport& arm : report->arms) {
    for (MetricReport& metric : arm.metrics) {
      if (metric.primary || !metric.comparison) continue;
      family.push_back(&metric);
      p_values.push_back(metric.comparison->p_value);
    }
  }
  const std::vector<double> adjusted = HolmAdjusted(p_values);
  for (std::size_t i = 0; i < family.size(); ++i) family[i]->adjusted_p = adjusted[i];
}

}  // namespace

double SampleRatioPValueOf(const LedgerSnapshot& snapshot) {
  std::vector<std::int64_t> counts;
  std::vector<int> shares;
  for (const ArmSnapshot& arm : snapshot.arms) {
    counts.push_back(arm.entered.first_exposures);
    shares.push_back(arm.share);
  }
  return snapshot.arms.empty() ? 1 : SampleRatioPValue(counts, shares);
}

ExperimentReport MakeReport(const LedgerSnapshot& snapshot, const Question& question,
                            const std::vector<HaltedArm>& halted, const ReportOptions& options) {
  ExperimentReport report;
  report.experiment = snapshot.experiment;
  report.revision = snapshot.revision;
  report.control = snapshot.control;
  report.period = snapshot.period;
  report.unit = snapshot.switchback ? "slice" : std::string(Name(snapshot.unit));
  report.question = question;
  report.since = snapshot.since;
  report.taken = snapshot.taken;
  report.replicas = snapshot.replicas;
  report.sample_rate = std::ldexp(1.0, -snapshot.sample_level);
  report.split_units = snapshot.split_units;
  report.alpha = options.alpha;
  report.sample_ratio_p_value = SampleRatioPValueOf(snapshot);
  report.sample_ratio_alarm = report.sample_ratio_p_value <= kSampleRatioAlarm;

  const ReportMaker maker(snapshot, question, options);
  for (const ArmSnapshot& arm : snapshot.arms) {
    ArmReport& entry = report.arms.emplace_back(maker.MakeArm(arm));
    for (const HaltedArm& halt : halted) {
      if (halt.arm == arm.name) entry.halted = halt.why;
    }
    for (const Column& column : maker.columns()) {
      entry.metrics.push_back(maker.MakeMetric(column, arm, column.name == question.metric));
    }
  }
  std::stable_partition(report.arms.begin(), report.arms.end(),
                        [](const ArmReport& arm) { return arm.is_control; });
  AdjustSecondary(&report);
  report.warnings = Warnings(snapshot, report, options);
  for (ArmReport& arm : report.arms) {
    if (arm.is_control) continue;
    const MetricReport* primary =
        arm.metrics.empty() || !arm.metrics.front().primary ? nullptr : &arm.metrics.front();
    std::optional<Interval> interval;
    if (primary != nullptr && primary->comparison) interval = primary->comparison->interval;
    arm.verdict =
        Judge(interval, question.better, question.min_effect, report.sample_ratio_p_value);
    arm.words = VerdictSentence(report, arm);
  }
  report.summary = SummaryOf(report);
  report.methods = MethodsOf(report, options);
  return report;
}

}  // namespace penstock
