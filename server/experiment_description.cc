#include "server/experiment_description.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "server/config/duration.h"
#include "server/policy_of_config.h"

namespace penstock {
namespace {

void SetTime(absl::Time time, google::protobuf::Timestamp* proto) {
  const std::int64_t seconds = absl::ToUnixSeconds(time);
  proto->set_seconds(seconds);
  proto->set_nanos(
      static_cast<int>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
}

v1::ArmHalt::Source SourceOf(HaltSource source) {
  switch (source) {
    case HaltSource::kConfiguration:
      return v1::ArmHalt::SOURCE_CONFIGURATION;
    case HaltSource::kOperator:
      return v1::ArmHalt::SOURCE_OPERATOR;
    case HaltSource::kGuardrail:
      return v1::ArmHalt::SOURCE_GUARDRAIL;
    case HaltSource::kDamagedState:
      return v1::ArmHalt::SOURCE_DAMAGED_STATE;
    case HaltSource::kPeer:
      return v1::ArmHalt::SOURCE_PEER;
  }
  return v1::ArmHalt::SOURCE_UNSPECIFIED;
}

void Describe(const ArmHalt& halt, v1::ArmHalt* proto) {
  proto->set_source(SourceOf(halt.source));
  proto->set_reason(halt.reason);
  SetTime(halt.time, proto->mutable_time());
  proto->set_metric(halt.metric);
  proto->set_value(halt.value);
  proto->set_bound(halt.bound);
}

v1::ExperimentState StateOf(const Experiment& experiment,
                            const std::map<std::string, ArmHalt>& halts, absl::Time now) {
  if (now >= experiment.end) return v1::EXPERIMENT_STATE_ENDED;
  if (halts.contains(experiment.control)) return v1::EXPERIMENT_STATE_HALTED;
  if (now < experiment.start) return v1::EXPERIMENT_STATE_NOT_STARTED;
  return v1::EXPERIMENT_STATE_RUNNING;
}

}  // namespace

v1::ExperimentDescription DescribeExperiment(const Experiment& experiment,
                                             const std::string& revision,
                                             const std::map<std::string, ArmHalt>& halts,
                                             const std::map<std::string, std::string>& fingerprints,
                                             absl::Time now) {
  v1::ExperimentDescription description;
  description.set_name(experiment.name);
  description.set_revision(revision);
  description.set_state(StateOf(experiment, halts, now));
  description.set_analysis_period(experiment.period);
  description.set_counts_exposures(halts.empty());
  for (const std::string& tenant : experiment.audience) description.add_tenants(tenant);
  description.set_unit(std::string(Name(experiment.unit)));
  description.set_range_first(experiment.range_first);
  description.set_range_size(experiment.range_size);
  description.set_exposed(experiment.exposed);
  description.set_switchback(experiment.switchback_slice.has_value());
  description.set_control(experiment.control);
  std::vector<Arm> arms = experiment.arms;
  std::sort(arms.begin(), arms.end(), [](const Arm& a, const Arm& b) { return a.name < b.name; });
  for (const Arm& arm : arms) {
    v1::ExperimentArm* const proto = description.add_arms();
    proto->set_name(arm.name);
    proto->set_router(arm.router);
    proto->set_share(arm.share);
    if (const auto found = fingerprints.find(arm.router); found != fingerprints.end()) {
      proto->set_package_fingerprint(found->second);
    }
    if (const auto halt = halts.find(arm.name); halt != halts.end()) {
      Describe(halt->second, proto->mutable_halt());
    }
  }
  if (experiment.start != absl::InfinitePast()) {
    SetTime(experiment.start, description.mutable_start());
  }
  if (experiment.end != absl::InfiniteFuture()) SetTime(experiment.end, description.mutable_end());
  return description;
}

void DescribeGuardrails(const v1::ExperimentConfig& config, const Guardrails& guardrails,
                        absl::Duration now, v1::ExperimentDescription* description) {
  for (const Guardrail& guardrail : GuardrailsOfConfig(config)) {
    v1::ExperimentGuardrail* const proto = description->add_guardrails();
    proto->set_metric(guardrail.metric);
    if (guardrail.max) proto->set_max(*guardrail.max);
    if (guardrail.min) proto->set_min(*guardrail.min);
    *proto->mutable_window() = ToProto(guardrail.window);
    proto->set_min_requests(guardrail.min_requests);
    for (const GuardrailReading& reading :
         guardrails.ReadingsOf(config.name(), guardrail.metric, now)) {
      v1::ExperimentGuardrail::Reading* const shown = proto->add_readings();
      shown->set_arm(reading.arm);
      shown->set_requests(reading.requests);
      if (reading.value) shown->set_value(*reading.value);
    }
    std::sort(proto->mutable_readings()->begin(), proto->mutable_readings()->end(),
              [](const auto& a, const auto& b) { return a.arm() < b.arm(); });
  }
}

}  // namespace penstock
