#include "server/rpc/experiment_convert.h"

#include <utility>

#include "server/config/duration.h"

namespace penstock {
namespace {

void SetTime(absl::Time time, google::protobuf::Timestamp* out) {
  const std::int64_t nanos = absl::ToUnixNanos(time);
  const std::int64_t seconds = absl::ToUnixSeconds(time);
  out->set_seconds(seconds);
  out->set_nanos(static_cast<int>(nanos - seconds * 1'000'000'000));
}

v1::ArmComparison ToProto(const Comparison& comparison) {
  v1::ArmComparison out;
  out.set_difference(comparison.difference);
  out.set_lower(comparison.interval.lower);
  out.set_upper(comparison.interval.upper);
  out.set_standard_error(comparison.standard_error);
  out.set_p_value(comparison.p_value);
  out.set_detectable(comparison.detectable);
  if (comparison.relative) {
    out.set_relative_difference(comparison.relative->difference);
    out.set_relative_lower(comparison.relative->interval.lower);
    out.set_relative_upper(comparison.relative->interval.upper);
    out.set_relative_detectable(comparison.relative->detectable);
  }
  return out;
}

v1::MetricReport ToProto(const MetricReport& metric) {
  v1::MetricReport out;
  out.set_metric(metric.metric);
  out.set_unit(metric.unit);
  out.set_primary(metric.primary);
  out.set_units(metric.units);
  if (metric.value) out.set_value(*metric.value);
  if (metric.p50) out.set_p50(*metric.p50);
  if (metric.p90) out.set_p90(*metric.p90);
  if (metric.p99) out.set_p99(*metric.p99);
  if (metric.comparison) *out.mutable_comparison() = ToProto(*metric.comparison);
  if (metric.adjusted_p) out.set_adjusted_p(*metric.adjusted_p);
  out.set_note(metric.note);
  return out;
}

v1::ArmReport ToProto(const ArmReport& arm) {
  v1::ArmReport out;
  out.set_name(arm.name);
  out.set_router(arm.router);
  out.set_share(arm.share);
  out.set_is_control(arm.is_control);
  if (arm.halted) out.set_halted(*arm.halted);
  out.set_requests(arm.requests);
  out.set_errors(arm.errors);
  out.set_cancelled(arm.cancelled);
  out.set_left_out(arm.left_out);
  out.set_prompt_tokens(arm.prompt_tokens);
  out.set_tokens(arm.tokens);
  out.set_unique_units(arm.unique_units);
  out.set_first_exposures(arm.first_exposures);
  out.set_expected_exposures(arm.expected_exposures);
  out.set_texts_scored(arm.texts.scored);
  out.set_texts_dropped(arm.texts.dropped);
  out.set_text_tokens(arm.texts.tokens);
  if (!arm.is_control) {
    out.set_verdict(std::string(VerdictName(arm.verdict)));
    out.set_words(arm.words);
  }
  for (const MetricReport& metric : arm.metrics) *out.add_metrics() = ToProto(metric);
  return out;
}

void SetQuestion(const Question& question, v1::PrimaryQuestion* out) {
  out->set_metric(question.metric);
  out->set_better(question.better == Better::kHigher ? "higher" : "lower");
  out->set_min_effect(question.min_effect);
  out->set_unmeasured(question.unmeasured);
}

void SetMoments(const UnitMoments& moments, v1::Moments* out) {
  const UnitMoments::State state = moments.state();
  out->set_units(state.units);
  out->set_mean_y(state.mean_y);
  out->set_mean_x(state.mean_x);
  out->set_moment_yy(state.moment_yy);
  out->set_moment_xx(state.moment_xx);
  out->set_moment_xy(state.moment_xy);
}

void SetMoments(const ArmMoments& moments, v1::ArmMoments* out) {
  for (const UnitMoments& metric : moments.metrics) SetMoments(metric, out->add_metrics());
  for (const UnitMoments& outcome : moments.outcomes) SetMoments(outcome, out->add_outcomes());
  SetMoments(moments.paired, out->mutable_paired());
  SetMoments(moments.texts, out->mutable_texts());
  out->set_first_exposures(moments.first_exposures);
}

void SetSketch(const QuantileSketch& sketch, v1::Sketch* out) {
  for (const auto& [bucket, count] : sketch.buckets().positive) {
    (*out->mutable_positive())[bucket] = count;
  }
  for (const auto& [bucket, count] : sketch.buckets().negative) {
    (*out->mutable_negative())[bucket] = count;
  }
  out->set_zeros(sketch.buckets().zeros);
}

v1::ArmSnapshot ToProto(const ArmSnapshot& arm, const std::vector<HaltedArm>& halted) {
  v1::ArmSnapshot out;
  out.set_name(arm.name);
  out.set_router(arm.router);
  out.set_share(arm.share);
  for (const HaltedArm& halt : halted) {
    if (halt.arm == arm.name) out.set_halted(halt.why);
  }
  for (const double sum : arm.totals.sums.all()) out.add_sums(sum);
  out.set_prompt_tokens(arm.totals.prompt_tokens);
  out.set_cancelled(arm.totals.cancelled);
  out.set_left_out(arm.totals.left_out);
  out.set_texts_scored(arm.totals.texts.scored);
  out.set_texts_dropped(arm.totals.texts.dropped);
  out.set_text_tokens(arm.totals.texts.tokens);
  const std::vector<std::uint8_t>& registers = arm.totals.units.registers();
  out.set_unique_units(std::string(registers.begin(), registers.end()));
  SetSketch(arm.totals.first_token, out.mutable_first_token());
  SetSketch(arm.totals.gaps, out.mutable_gaps());
  SetSketch(arm.totals.latency, out.mutable_latency());
  SetMoments(arm.entered, out.mutable_entered());
  SetMoments(arm.retired, out.mutable_retired());
  return out;
}

v1::ExperimentSnapshot HeaderOf(const AskedSnapshot& asked) {
  const LedgerSnapshot& snapshot = asked.snapshot;
  v1::ExperimentSnapshot out;
  out.set_experiment(snapshot.experiment);
  out.set_revision(snapshot.revision);
  out.set_period(snapshot.period);
  out.set_unit(std::string(Name(snapshot.unit)));
  out.set_switchback(snapshot.switchback);
  out.set_control(snapshot.control);
  for (const std::string& outcome : snapshot.outcomes) out.add_outcomes(outcome);
  SetTime(snapshot.since, out.mutable_since());
  SetTime(snapshot.taken, out.mutable_taken());
  out.set_sample_level(snapshot.sample_level);
  for (const MetricDefinition& metric : MetricDefinitions()) {
    out.add_metrics(std::string(metric.name));
  }
  for (int i = 0; i < kQuantities; ++i) {
    out.add_quantities(std::string(Name(static_cast<Quantity>(i))));
  }
  for (const ArmSnapshot& arm : snapshot.arms) *out.add_arms() = ToProto(arm, asked.halted);
  SetQuestion(asked.question, out.mutable_primary());
  *out.mutable_unit_window() = penstock::ToProto(snapshot.windows.unit);
  *out.mutable_outcome_window() = penstock::ToProto(snapshot.windows.outcome);
  *out.mutable_burn_in() = penstock::ToProto(snapshot.windows.burn_in);
  out.set_instance(asked.instance);
  return out;
}

void SetUnit(const UnitRecord& unit, v1::UnitRecord* out) {
  out->set_hash(unit.hash);
  out->set_arm(unit.arm);
  out->set_first_micros(absl::ToUnixMicros(unit.first));
  out->set_entered(unit.entered);
  for (const double value : unit.values.all()) out->add_values(value);
  for (const double value : unit.outcomes) out->add_outcomes(value);
  for (const PairedSums& sums : unit.paired) {
    out->add_paired(sums.difference);
    out->add_paired(sums.tokens);
  }
  out->set_texts(static_cast<std::uint32_t>(unit.texts));
}

}  // namespace

v1::ExperimentReport ToProto(const ExperimentReport& report) {
  v1::ExperimentReport out;
  out.set_experiment(report.experiment);
  out.set_revision(report.revision);
  out.set_period(report.period);
  out.set_unit(report.unit);
  out.set_control(report.control);
  SetQuestion(report.question, out.mutable_primary());
  SetTime(report.since, out.mutable_since());
  SetTime(report.taken, out.mutable_taken());
  out.set_replicas(report.replicas);
  out.set_sample_rate(report.sample_rate);
  out.set_split_units(report.split_units);
  out.set_alpha(report.alpha);
  out.set_sample_ratio_p_value(report.sample_ratio_p_value);
  out.set_sample_ratio_alarm(report.sample_ratio_alarm);
  out.set_summary(report.summary);
  for (const std::string& warning : report.warnings) out.add_warnings(warning);
  for (const ArmReport& arm : report.arms) *out.add_arms() = ToProto(arm);
  for (const Method& method : report.methods) {
    v1::ReportMethod* const entry = out.add_methods();
    entry->set_what(method.what);
    entry->set_how(method.how);
    entry->set_source(method.source);
  }
  return out;
}

v1::GetExperimentSnapshotResponse SnapshotMessages::Next() {
  v1::GetExperimentSnapshotResponse message;
  if (!std::exchange(header_sent_, true)) *message.mutable_header() = HeaderOf(asked_);
  const std::vector<UnitRecord>& units = asked_.snapshot.units;
  const std::size_t end = std::min(units.size(), sent_ + units_per_message_);
  for (; sent_ < end; ++sent_) SetUnit(units[sent_], message.add_units());
  message.set_last(sent_ == units.size());
  return message;
}

}  // namespace penstock
