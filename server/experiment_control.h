// What guards experiments while the server runs: guardrails, halts, revisions, series.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "penstock/v1/config.pb.h"
#include "server/base/clock.h"
#include "server/engine/frontend.h"
#include "server/engine/router_set.h"
#include "server/experiments/guardrails/arm_halts.h"
#include "server/experiments/guardrails/guardrails.h"
#include "server/experiments/guardrails/halts_page.h"
#include "server/experiments/ledger/ledger.h"
#include "server/experiments/paired_text.h"
#include "server/rpc/experiment_operations.h"
#include "server/telemetry/expert_ledger.h"
#include "server/telemetry/prometheus_telemetry.h"

namespace penstock {

// Thread-safe.
class ExperimentControl final : public ExperimentOperations {
 public:
  struct Options {
    std::string state_folder;  // of ArmHalts
    const Clock* clock = &Clock::Real();
    // Brings halts and periods into force for new requests: afterwards none is assigned by those of
    // before. Not called while Configure runs.
    std::function<void()> apply;
    std::function<void(std::vector<ExperimentSeries>)> show;  // when they change
  };

  explicit ExperimentControl(Options options);

  // What it asks about revisions, from now on. Both outlive the last call.
  void Serve(Frontend* frontend, const RouterSet* routers);

  // Takes over the configuration's experiments and sets halts and periods of `policy`, which is of
  // the same configuration.
  void Configure(const v1::ExperimentsConfig& config, Policy* policy);
  // By arm.
  std::map<std::string, ArmHalt> HaltsOf(const std::string& experiment) const {
    return halts_.HaltsOf(experiment);
  }

  // What new requests are assigned by. After Serve.
  std::vector<RunningAnalysis> Running() const;

  // Those of this replica's own guardrails and operators, for others to take over: what was taken
  // over from one is not passed on to the next.
  std::vector<NamedHalt> OwnHalts() const;
  // Another replica's halt. Taken over once, restarts included: an operator who resumes the arm
  // here has the last word on it. Ignored where there is no such arm.
  void TakeOver(const std::string& peer, const NamedHalt& halt);

  void OnRequestEnded(const RequestOutcome& outcome);
  // A text that was scored, or dropped: then without arms.
  void OnText(const PairedText& text);
  // Loads in, breaches halted, series shown. One thread, after Serve.
  void Look(const std::vector<RouterExpertStats>& routers);

  v1::ListExperimentsResponse ListExperiments() override;
  absl::StatusOr<v1::ExperimentDescription> HaltArm(const v1::HaltArmRequest& request) override;
  absl::StatusOr<v1::ExperimentDescription> ResumeArm(const v1::ResumeArmRequest& request) override;

 private:
  void HaltBreached(const std::vector<GuardrailBreach>& breaches);
  void ShowSeries();
  // Guardrails of what is configured, with the halts of now.
  void WatchConfigured();
  absl::StatusOr<v1::ExperimentDescription> Find(const std::string& experiment);

  const Options options_;
  ArmHalts halts_;
  Frontend* frontend_ = nullptr;
  const RouterSet* routers_ = nullptr;

  mutable std::mutex mutex_;  // guards everything below
  v1::ExperimentsConfig config_;
  Guardrails guardrails_;
  std::map<std::string, std::string> revisions_;  // of the look before
  std::vector<ExperimentSeries> shown_;
};

}  // namespace penstock
