#include "server/experiments/statistics/unit_moments.h"

#include <algorithm>

namespace penstock {

UnitMoments UnitMoments::FromState(const State& state) {
  UnitMoments moments;
  moments.units_ = state.units;
  moments.mean_y_ = state.mean_y;
  moments.mean_x_ = state.mean_x;
  moments.moment_yy_ = state.moment_yy;
  moments.moment_xx_ = state.moment_xx;
  moments.moment_xy_ = state.moment_xy;
  return moments;
}

UnitMoments UnitMoments::FromSums(const UnitSums& sums) {
  UnitMoments moments;
  if (sums.units <= 0) return moments;
  const double n = static_cast<double>(sums.units);
  moments.units_ = sums.units;
  moments.mean_y_ = sums.sum / n;
  moments.mean_x_ = sums.denominator_sum / n;
  moments.moment_yy_ = std::max(0.0, sums.sum_squares - n * moments.mean_y_ * moments.mean_y_);
  moments.moment_xx_ =
      std::max(0.0, sums.denominator_sum_squares - n * moments.mean_x_ * moments.mean_x_);
  moments.moment_xy_ = sums.cross_sum - n * moments.mean_x_ * moments.mean_y_;
  return moments;
}

void UnitMoments::Add(double numerator, double denominator) {
  ++units_;
  const double n = static_cast<double>(units_);
  const double from_old_y = numerator - mean_y_;
  const double from_old_x = denominator - mean_x_;
  mean_y_ += from_old_y / n;
  mean_x_ += from_old_x / n;
  const double from_new_y = numerator - mean_y_;
  moment_yy_ += from_old_y * from_new_y;
  moment_xx_ += from_old_x * (denominator - mean_x_);
  moment_xy_ += from_old_x * from_new_y;
}

void UnitMoments::Merge(const UnitMoments& other) {
  if (other.units_ == 0) return;
  if (units_ == 0) {
    *this = other;
    return;
  }
  const double n = static_cast<double>(units_);
  const double m = static_cast<double>(other.units_);
  const double apart_y = other.mean_y_ - mean_y_;
  const double apart_x = other.mean_x_ - mean_x_;
  const double weight = n / (n + m) * m;
  moment_yy_ += other.moment_yy_ + apart_y * apart_y * weight;
  moment_xx_ += other.moment_xx_ + apart_x * apart_x * weight;
  moment_xy_ += other.moment_xy_ + apart_x * apart_y * weight;
  mean_y_ += apart_y * m / (n + m);
  mean_x_ += apart_x * m / (n + m);
  units_ += other.units_;
}

UnitSums UnitMoments::Sums() const {
  const double n = static_cast<double>(units_);
  return {.units = units_,
          .sum = n * mean_y_,
          .sum_squares = moment_yy_ + n * mean_y_ * mean_y_,
          .denominator_sum = n * mean_x_,
          .denominator_sum_squares = moment_xx_ + n * mean_x_ * mean_x_,
          .cross_sum = moment_xy_ + n * mean_x_ * mean_y_};
}

std::optional<ArmEstimate> UnitMoments::Estimate() const {
  if (units_ < 2 || !(mean_x_ > 0)) return std::nullopt;
  const double n = static_cast<double>(units_);
  const double ratio = mean_y_ / mean_x_;
  // Σ(y − R x)², whose mean is zero by the definition of R.
  const double residual =
      std::max(0.0, moment_yy_ - 2 * ratio * moment_xy_ + ratio * ratio * moment_xx_);
  return ArmEstimate{.units = units_,
                     .value = ratio,
                     .variance = residual / (n - 1) / (mean_x_ * mean_x_),
                     .effective_units = n / (1 + moment_xx_ / (n * mean_x_ * mean_x_))};
}

}  // namespace penstock
