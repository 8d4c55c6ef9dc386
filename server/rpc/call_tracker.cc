#include "server/rpc/call_tracker.h"

#include <chrono>

namespace penstock {

CallTracker::Call CallTracker::Begin() {
  std::lock_guard<std::mutex> lock(mutex_);
  ++live_;
  return Call(this, [](CallTracker* tracker) { tracker->End(); });
}

void CallTracker::End() {
  // Notified under the lock: whoever waits may destroy the tracker as soon as it is released.
  std::lock_guard<std::mutex> lock(mutex_);
  --live_;
  changed_.notify_all();
}

bool CallTracker::WaitUntilNone(absl::Duration timeout) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto none = [this] { return live_ == 0; };
  if (timeout == absl::InfiniteDuration()) {
    changed_.wait(lock, none);
    return true;
  }
  return changed_.wait_for(lock, absl::ToChronoNanoseconds(timeout), none);
}

}  // namespace penstock
