// Experiments as the running server measures them: its requests in, snapshots and figures out.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "penstock/v1/config.pb.h"
#include "server/experiments/exposure_log.h"
#include "server/experiments/guardrails/arm_halt.h"
#include "server/experiments/ledger/ledger.h"
#include "server/experiments/paired_text.h"
#include "server/experiments/report/report.h"
#include "server/experiments/request_outcome.h"
#include "server/rpc/experiment_convert.h"
#include "server/rpc/expert_stats.h"
#include "server/telemetry/events.h"

namespace penstock {

// Thread-safe.
class ExperimentDesk {
 public:
  struct Options {
    std::string exposure_log;             // path; empty: none
    const Clock* clock = &Clock::Real();  // outlives the desk
  };

  // INVALID_ARGUMENT: the exposure log cannot be written.
  static absl::StatusOr<std::unique_ptr<ExperimentDesk>> Create(Options options);

  // The experiments that run from now on, valid as LoadConfig leaves them; reopens the exposure
  // log.
  void SetConfig(const v1::ServerConfig& config);
  // Which arms are halted, and why; asked for at each report. May be empty.
  void SetHalts(std::function<std::vector<HaltedArm>(const std::string& experiment)> halts);

  void OnAssigned(const AdmittedRequest& request);
  // `text`: the request's text was drawn to be scored under other arms; OnText comes, or came.
  void OnRequestEnded(const RequestOutcome& outcome, bool text);
  // A text that was scored, or dropped: then without arms.
  void OnText(const PairedText& text);
  // What requests are assigned by now: reports are of this from now on.
  void OnRunning(const std::vector<RunningAnalysis>& running) { ledger_.OpenBooks(running); }
  // What routers did since the look before. One thread.
  // `begun`: before `routers` were read. Nothing of what came before it is in what the next look
  // adds.
  void Look(const std::vector<RouterExpertStats>& routers, absl::Time begun);

  // For the services. The desk must outlive it.
  ExperimentSource source();
  // For /metrics.
  std::vector<ExperimentFigures> Figures() const;
  Ledger& ledger() { return ledger_; }

 private:
  ExperimentDesk(Options options, std::unique_ptr<ExposureLog> log);
  absl::StatusOr<AskedSnapshot> Snapshot(const std::string& experiment, const std::string& revision,
                                         bool with_units) const;

  const Options options_;
  const std::string instance_;              // AskedSnapshot's
  const std::unique_ptr<ExposureLog> log_;  // null: none
  Ledger ledger_;

  mutable std::mutex mutex_;
  std::map<std::string, Question> questions_;  // by experiment
  std::function<std::vector<HaltedArm>(const std::string&)> halts_;
  std::map<std::string, RouterExpertStats> last_look_;  // Look's own, as the next
  absl::Time last_look_time_;
};

// The plans and questions of a configuration's experiments.
std::vector<AnalysisPlan> PlansOf(const v1::ServerConfig& config);
std::map<std::string, Question> QuestionsOf(const v1::ServerConfig& config);

// Halts, in the report's words.
std::vector<HaltedArm> HaltedArms(const std::map<std::string, ArmHalt>& halts);

// A request as the ledger takes it; borrows from `request`.
ExposedRequest ToExposed(const AdmittedRequest& request);
RequestMeasures ToMeasures(const RequestOutcome& outcome);

}  // namespace penstock
