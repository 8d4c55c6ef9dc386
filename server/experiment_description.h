// An experiment, as penstock.v1 shows it.
#pragma once

#include <map>
#include <string>

#include "absl/time/time.h"
#include "penstock/v1/config.pb.h"
#include "penstock/v1/experiments.pb.h"
#include "server/experiments/experiment.h"
#include "server/experiments/guardrails/arm_halt.h"
#include "server/experiments/guardrails/guardrails.h"

namespace penstock {

// `experiment` with the halts and the period that hold; `fingerprints`: of the loaded routers.
v1::ExperimentDescription DescribeExperiment(const Experiment& experiment,
                                             const std::string& revision,
                                             const std::map<std::string, ArmHalt>& halts,
                                             const std::map<std::string, std::string>& fingerprints,
                                             absl::Time now);

// Adds the guardrails and what they read at `now`, on Clock::Monotonic.
void DescribeGuardrails(const v1::ExperimentConfig& config, const Guardrails& guardrails,
                        absl::Duration now, v1::ExperimentDescription* description);

}  // namespace penstock
