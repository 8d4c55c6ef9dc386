#include "server/experiments/shadow_sampling.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "server/experiments/bucketing.h"

namespace penstock {
namespace {

// Weight of the newest measurement in the estimate.
constexpr double kSmoothing = 0.3;

}  // namespace

bool InShadowSample(const ShadowSampling& sampling, std::uint64_t step) {
  char bytes[16];
  for (int i = 0; i < 8; ++i) {
    bytes[i] = static_cast<char>(sampling.seed >> (8 * i));
    bytes[8 + i] = static_cast<char>(step >> (8 * i));
  }
  const std::uint32_t hash = Murmur3().Add(std::string_view(bytes, sizeof bytes)).Finish();
  return hash < std::ldexp(sampling.share, 32);
}

bool ShadowBudget::Allows(std::int64_t work) const {
  return credit_ > absl::ZeroDuration() &&
         absl::Seconds(seconds_per_work_ * static_cast<double>(work)) <= credit_;
}

void ShadowBudget::Account(absl::Duration step, std::int64_t work, absl::Duration shadow) {
  credit_ = std::min(credit_ + max_cost_ * step, max_cost_ * kMemory) - shadow;
  if (work == 0) return;
  const double measured = absl::ToDoubleSeconds(shadow) / static_cast<double>(work);
  seconds_per_work_ = seconds_per_work_ == 0
                          ? measured
                          : (1 - kSmoothing) * seconds_per_work_ + kSmoothing * measured;
}

}  // namespace penstock
