// Where the server's events go.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "server/telemetry/events.h"

namespace penstock {

// Thread-safe; no call blocks for long or fails. OnStep and OnLoad come from the engine thread, the
// others from anywhere.
class Telemetry {
 public:
  virtual ~Telemetry() = default;

  virtual void OnStep(const StepEvent& step) = 0;
  virtual void OnRequestFinished(const RequestEvent& request) = 0;
  virtual void OnLoad(const LoadEvent& load) = 0;
  // The routers that are loaded now; series of all others disappear.
  virtual void OnRoutersLoaded(const std::vector<std::string>& names) = 0;
  // A tenant's request was turned away; reason: "requests_per_second", "tokens_per_second",
  // "concurrent" or "queue".
  virtual void OnThrottled(std::string_view tenant, std::string_view reason) = 0;
  virtual void OnReload(bool successful) = 0;
  // A finished request's text that was to be scored again under the other arms of its experiment;
  // result: "scored", "queue_full", "over_cost", "too_late" or "failed".
  virtual void OnPairedText(std::string_view experiment, std::string_view result) = 0;
};

}  // namespace penstock
