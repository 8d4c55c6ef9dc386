// A clock that a test moves by hand.
#pragma once

#include <atomic>
#include <cstdint>

#include "server/base/clock.h"

namespace penstock {

// Both readings move together, by Advance alone. Thread-safe.
class FakeClock final : public Clock {
 public:
  explicit FakeClock(absl::Time start = absl::FromUnixSeconds(1'700'000'000)) : start_(start) {}

  absl::Time Now() const override { return start_ + Monotonic(); }
  absl::Duration Monotonic() const override { return absl::Nanoseconds(elapsed_.load()); }
  void Advance(absl::Duration by) { elapsed_ += absl::ToInt64Nanoseconds(by); }

 private:
  const absl::Time start_;
  std::atomic<std::int64_t> elapsed_{0};
};

}  // namespace penstock
