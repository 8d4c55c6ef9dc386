#include "server/experiments/statistics/confidence_sequence.h"

#include <algorithm>
#include <boost/math/distributions/normal.hpp>
#include <boost/math/special_functions/lambert_w.hpp>
#include <cmath>

#include "server/base/check.h"

namespace penstock {
namespace {

constexpr double kPower = 0.8;

// The set of q with |m₁ − q m₀| ≤ c √(v₁ + q² v₀), for m₀² > c² v₀: an interval.
Interval RatiosWithin(double m1, double v1, double m0, double v0, double c) {
  const double a = m0 * m0 - c * c * v0;
  const double half_b = m1 * m0;
  const double root = std::sqrt(std::max(0.0, half_b * half_b - a * (m1 * m1 - c * c * v1)));
  return {(half_b - root) / a, (half_b + root) / a};
}

}  // namespace

// ρ² makes c(t) smallest at t = tuned_units: tρ² = −W₋₁(−α²/e) − 1 (appendix B.2 of the paper, of
// which its eq. 50 is an approximation).
ConfidenceSequence::ConfidenceSequence(const SequenceOptions& options) : options_(options) {
  PENSTOCK_CHECK_GT(options.alpha, 0);
  PENSTOCK_CHECK_LT(options.alpha, 1);
  PENSTOCK_CHECK_GT(options.tuned_units, 0);
  PENSTOCK_CHECK_GT(options.min_effective_units, 0);
  const double w = boost::math::lambert_wm1(-options.alpha * options.alpha * std::exp(-1.0));
  mixture_variance_ = (-w - 1) / options.tuned_units;
}

double ConfidenceSequence::Radius(double units) const {
  PENSTOCK_CHECK_GT(units, 0);
  const double y = units * mixture_variance_;
  return std::sqrt(2 * (y + 1) / y * (0.5 * std::log1p(y) - std::log(options_.alpha)));
}

double ConfidenceSequence::PValue(double units, double z) const {
  PENSTOCK_CHECK_GT(units, 0);
  const double y = units * mixture_variance_;
  return std::min(1.0, std::exp(0.5 * std::log1p(y) - y * z * z / (2 * (y + 1))));
}

std::optional<Comparison> ConfidenceSequence::Compare(const ArmEstimate& treatment,
                                                      const ArmEstimate& control) const {
  if (treatment.units < 2 || control.units < 2 ||
      std::min(treatment.effective_units, control.effective_units) < options_.min_effective_units) {
    return std::nullopt;
  }
  const double n1 = static_cast<double>(treatment.units);
  const double n0 = static_cast<double>(control.units);
  const double pooled =
      ((n1 - 1) * treatment.variance + (n0 - 1) * control.variance) / (n1 + n0 - 2);
  const double v1 = std::max(treatment.variance, pooled) / n1;
  const double v0 = std::max(control.variance, pooled) / n0;
  if (!(v1 + v0 > 0)) return std::nullopt;

  static const double power_quantile = boost::math::quantile(boost::math::normal(), kPower);
  const double c = Radius(n1 + n0);
  Comparison comparison;
  comparison.difference = treatment.value - control.value;
  comparison.standard_error = std::sqrt(v1 + v0);
  comparison.interval = {comparison.difference - c * comparison.standard_error,
                         comparison.difference + c * comparison.standard_error};
  comparison.p_value = PValue(n1 + n0, comparison.difference / comparison.standard_error);
  comparison.detectable = (c + power_quantile) * comparison.standard_error;

  if (control.value * control.value > c * c * v0) {
    const double size = std::abs(control.value);
    const Interval ratios = RatiosWithin(treatment.value, v1, control.value, v0, c);
    RelativeComparison& relative = comparison.relative.emplace();
    relative.difference = comparison.difference / size;
    relative.interval = control.value > 0 ? Interval{ratios.lower - 1, ratios.upper - 1}
                                          : Interval{1 - ratios.upper, 1 - ratios.lower};
    relative.detectable = comparison.detectable / size;
  }
  return comparison;
}

std::optional<Comparison> ConfidenceSequence::AgainstZero(const ArmEstimate& difference) const {
  if (difference.units < 2 || difference.effective_units < options_.min_effective_units ||
      !(difference.variance > 0)) {
    return std::nullopt;
  }
  static const double power_quantile = boost::math::quantile(boost::math::normal(), kPower);
  const double units = static_cast<double>(difference.units);
  const double c = Radius(units);
  Comparison comparison;
  comparison.difference = difference.value;
  comparison.standard_error = std::sqrt(difference.variance / units);
  comparison.interval = {comparison.difference - c * comparison.standard_error,
                         comparison.difference + c * comparison.standard_error};
  comparison.p_value = PValue(units, comparison.difference / comparison.standard_error);
  comparison.detectable = (c + power_quantile) * comparison.standard_error;
  return comparison;
}

}  // namespace penstock
