#include "server/experiments/shadow_sampling.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string_view>

#include "server/experiments/bucketing.h"

namespace penstock {
namespace {

// Weight of the newest measurement in the estimate.
constexpr double kSmoothing = 0.3;

std::size_t SizeOf(std::int64_t work) {
  return static_cast<std::size_t>(std::bit_width(static_cast<std::uint64_t>(work)));
}

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

double ShadowBudget::SecondsPerWork(std::size_t size) const {
  for (std::size_t smaller = size + 1; smaller-- > 0;) {
    if (seconds_per_work_[smaller] > 0) return seconds_per_work_[smaller];
  }
  for (std::size_t larger = size + 1; larger < seconds_per_work_.size(); ++larger) {
    if (seconds_per_work_[larger] > 0) return seconds_per_work_[larger];
  }
  return 0;
}

bool ShadowBudget::Allows(std::int64_t work) const {
  const double estimate = SecondsPerWork(SizeOf(work)) * static_cast<double>(work);
  return credit_ > absl::ZeroDuration() && absl::Seconds(estimate) <= credit_;
}

void ShadowBudget::Account(absl::Duration step, std::int64_t work, absl::Duration shadow) {
  credit_ = std::min(credit_ + max_cost_ * step, max_cost_ * kMemory) - shadow;
  if (work == 0) return;
  const double measured = absl::ToDoubleSeconds(shadow) / static_cast<double>(work);
  double& known = seconds_per_work_[SizeOf(work)];
  known = known == 0 ? measured : (1 - kSmoothing) * known + kSmoothing * measured;
}

}  // namespace penstock
