// A request's end, told to everyone who keeps count: telemetry, the log, experiments.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/base/clock.h"
#include "server/engine/live_request.h"
#include "server/engine/router_set.h"
#include "server/experiments/request_outcome.h"
#include "server/telemetry/telemetry.h"

namespace penstock {

// Thread-safe, but for Admitted and Ended, which the response thread alone calls.
class RequestReport {
 public:
  // All outlive it.
  RequestReport(const RouterSet* routers, Telemetry* telemetry,
                std::vector<ExperimentObserver*> observers, const Clock* clock);

  // The request was taken.
  void Admitted(const LiveRequest& live) const;
  // All its sequences are over. The summary is what its caller is told.
  Summary Ended(const LiveRequest& live) const;
  // It was never taken. `router`: the one that it named. `arrival` on Clock::Monotonic.
  void Refused(const Caller& caller, const std::string& router, const absl::Status& status,
               absl::Duration arrival) const;
  // Counts a refusal by quota or queue; other statuses are none.
  void Throttled(const std::string& tenant, const absl::Status& status) const;

 private:
  Summary Summarize(const LiveRequest& live) const;
  void TellTelemetry(const LiveRequest& live, const Summary& summary,
                     const std::string& code) const;
  void TellExperiments(const LiveRequest& live, const Summary& summary) const;

  const RouterSet* const routers_;
  Telemetry* const telemetry_;
  const std::vector<ExperimentObserver*> observers_;
  const Clock* const clock_;
};

}  // namespace penstock
