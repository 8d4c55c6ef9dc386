// Counts the calls that are being answered, so that a shutdown can wait for their last byte.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>

#include "absl/time/time.h"

namespace penstock {

// Thread-safe.
class CallTracker {
 public:
  // Counts as one call while it exists.
  using Call = std::unique_ptr<CallTracker, void (*)(CallTracker*)>;
  [[nodiscard]] Call Begin();

  // Waits until no call is left (true) or `timeout` is over (false).
  bool WaitUntilNone(absl::Duration timeout);

 private:
  void End();

  std::mutex mutex_;
  std::condition_variable changed_;
  int live_ = 0;
};

}  // namespace penstock
