// Which steps' rows other routers are asked about, and how much time that may take.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace penstock {

struct ShadowSampling {
  double share = 0;                       // of steps, [0, 1]; 0: no shadow routing
  double max_cost = 0.01;                 // share of step time that it may take, [0, 1]; 0: none
  std::uint64_t seed = 0;                 // of the draw
  std::vector<std::string> routers = {};  // that are asked; empty: all that are loaded

  friend bool operator==(const ShadowSampling&, const ShadowSampling&) = default;
};

// Whether a step is in the sample: a pure function of its number and the seed, so that a run is
// repeatable, and independent of what the step holds.
bool InShadowSample(const ShadowSampling& sampling, std::uint64_t step);

// A credit of time: every step earns max_cost of what it took, shadow routing spends what it took.
// A step of the sample whose estimated cost is over the credit is skipped, so that over a run the
// cost stays within max_cost of the steps' time, but for one step's error of estimate. The estimate
// is the measured time per row and router asked, smoothed, of steps of about that size: on a GPU a
// decode step of one row takes nearly as long as one of sixteen. Not thread-safe.
class ShadowBudget {
 public:
  // What is earned in this time at most is kept: an idle night buys no burst.
  static constexpr absl::Duration kMemory = absl::Minutes(1);

  explicit ShadowBudget(double max_cost) : max_cost_(max_cost) {}

  // `work`: rows times routers to be asked.
  bool Allows(std::int64_t work) const;
  // A step took `step` beside `shadow` for the routers asked (`work` as above, 0: none were).
  void Account(absl::Duration step, std::int64_t work, absl::Duration shadow);

 private:
  // Where steps of the size are not known yet: as those of the next smaller size, or else of the
  // next larger one, take per work; 0: no size is.
  double SecondsPerWork(std::size_t size) const;

  double max_cost_;
  absl::Duration credit_;
  std::array<double, 65> seconds_per_work_ = {};  // by the work's binary digits; 0: not known yet
};

}  // namespace penstock
