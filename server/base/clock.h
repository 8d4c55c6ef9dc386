// Time, injected, so that no test waits for it.
#pragma once

#include "absl/time/time.h"

namespace penstock {

class Clock {
 public:
  virtual ~Clock() = default;

  // The time of day (UTC). May jump when the host's clock is set: for log lines, schedules and
  // wall-clock deadlines.
  virtual absl::Time Now() const = 0;

  // Time since an arbitrary, fixed origin; never goes back. For durations, time-outs and windows.
  virtual absl::Duration Monotonic() const = 0;

  // The host's clocks. Thread-safe, never destroyed.
  static const Clock& Real();
};

}  // namespace penstock
