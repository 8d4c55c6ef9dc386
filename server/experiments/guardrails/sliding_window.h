// Sums over the last so many seconds.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"

namespace penstock {

// The window is kept in kSlots slots, so it covers its length or up to one slot less. `Sums` is
// default-constructible. Not thread-safe.
template <typename Sums>
class SlidingWindow {
 public:
  static constexpr int kSlots = 30;

  // `length` at least 1 s.
  explicit SlidingWindow(absl::Duration length) : slot_(length / kSlots) {}

  // The sums that what happens at `now` is added to. `now` never goes back.
  Sums& At(absl::Duration now) {
    const std::int64_t number = NumberAt(now);
    Slot& slot = slots_[static_cast<std::size_t>(number % kSlots)];
    if (slot.number != number) slot = {.number = number, .sums = Sums()};
    return slot.sums;
  }

  // Calls `visit` with the sums of every slot that the window still covers.
  template <typename Visit>
  void ForEach(absl::Duration now, const Visit& visit) const {
    const std::int64_t oldest = NumberAt(now) - kSlots + 1;
    for (const Slot& slot : slots_) {
      if (slot.number >= oldest) visit(slot.sums);
    }
  }

 private:
  struct Slot {
    std::int64_t number = -1;  // counts slots since the clock's origin; −1: never used
    Sums sums;
  };

  std::int64_t NumberAt(absl::Duration now) const { return now / slot_; }

  absl::Duration slot_;
  std::array<Slot, kSlots> slots_;
};

}  // namespace penstock
