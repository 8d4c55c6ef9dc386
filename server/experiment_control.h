// What watches experiments while the server runs: guardrails, halts, revisions, series.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "penstock/v1/config.pb.h"
#include "server/base/clock.h"
#include "server/engine/frontend.h"
#include "server/engine/router_set.h"
#include "server/experiments/guardrails/arm_halts.h"
#include "server/experiments/guardrails/guardrails.h"
#include "server/experiments/paired_text.h"
#include "server/rpc/experiment_operations.h"
#include "server/telemetry/expert_ledger.h"
#include "server/telemetry/prometheus_telemetry.h"

namespace penstock {

// Looks once a second, on a thread of its own, while there are experiments; a non-finite logit is
// looked at within milliseconds. Thread-safe.
class ExperimentControl final : public ExperimentObserver,
                                public PairedObserver,
                                public ExperimentOperations {
 public:
  struct Options {
    std::string state_folder;  // of ArmHalts
    const Clock* clock = &Clock::Real();
    absl::Duration interval = absl::Seconds(1);
    std::function<std::vector<RouterExpertStats>()> expert_stats;
    // Brings halts and periods into force for new requests: afterwards none is assigned by those of
    // before. Not called while Configure runs.
    std::function<void()> apply;
    PrometheusTelemetry* telemetry = nullptr;  // outlives it
  };

  explicit ExperimentControl(Options options);
  ~ExperimentControl() override;

  // Both outlive it. Starts the thread.
  void Start(Frontend* frontend, const RouterSet* routers);
  // Joins it; after Stop, nothing of what Start was given is touched.
  void Stop();

  // Takes over the configuration's experiments and sets halts and periods of `policy`, which is of
  // the same configuration.
  void Configure(const v1::ExperimentsConfig& config, Policy* policy);
  // Revisions may have changed: a router was loaded.
  void Refresh();

  // By arm.
  std::map<std::string, ArmHalt> HaltsOf(const std::string& experiment) const {
    return halts_.HaltsOf(experiment);
  }

  void OnAssigned(const AdmittedRequest&) override {}
  void OnRequestEnded(const RequestOutcome& outcome) override;
  void OnPairedText(const PairedText& text) override;

  v1::ListExperimentsResponse ListExperiments() override;
  absl::StatusOr<v1::ExperimentDescription> HaltArm(const v1::HaltArmRequest& request) override;
  absl::StatusOr<v1::ExperimentDescription> ResumeArm(const v1::ResumeArmRequest& request) override;

 private:
  void Loop();
  // One look: loads, breaches, series.
  void Look();
  void AddPaired(const PairedText& text, absl::Duration now);
  void HaltBreached(const std::vector<GuardrailBreach>& breaches);
  void ShowSeries();
  // Guardrails of what is configured, with the halts of now.
  void WatchConfigured();
  absl::StatusOr<v1::ExperimentDescription> Find(const std::string& experiment);

  const Options options_;
  ArmHalts halts_;
  Frontend* frontend_ = nullptr;
  const RouterSet* routers_ = nullptr;

  std::mutex mutex_;  // guards everything below but the thread
  v1::ExperimentsConfig config_;
  Guardrails guardrails_;
  std::map<std::string, std::string> revisions_;  // of the look before
  std::vector<ExperimentSeries> shown_;
  std::condition_variable changed_;
  bool look_now_ = false, stopped_ = false;

  // Apart from the rest: the engine's thread waits for no look.
  std::mutex paired_mutex_;
  std::vector<PairedText> paired_;  // since the look before; guarded by paired_mutex_

  std::thread thread_;
};

}  // namespace penstock
