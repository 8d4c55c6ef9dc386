// Where the events of serving go.
#pragma once

#include <string_view>

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
  // A tenant's request was turned away; reason: "requests_per_second", "tokens_per_second",
  // "concurrent" or "queue".
  virtual void OnThrottled(std::string_view tenant, std::string_view reason) = 0;
};

}  // namespace penstock
