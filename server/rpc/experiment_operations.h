// An operator's hand on experiments, as AdminService offers it.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "penstock/v1/experiments.pb.h"

namespace penstock {

// Thread-safe. HaltArm and ResumeArm may write a file, and so block.
class ExperimentOperations {
 public:
  virtual ~ExperimentOperations() = default;

  // Sorted by name.
  virtual v1::ListExperimentsResponse ListExperiments() = 0;

  // Errors as ArmHalts::Halt's and Resume's. In force when they return.
  virtual absl::StatusOr<v1::ExperimentDescription> HaltArm(const v1::HaltArmRequest& request) = 0;
  virtual absl::StatusOr<v1::ExperimentDescription> ResumeArm(
      const v1::ResumeArmRequest& request) = 0;
};

}  // namespace penstock
