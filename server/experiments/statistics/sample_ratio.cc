#include "server/experiments/statistics/sample_ratio.h"

#include <algorithm>
#include <boost/math/special_functions/gamma.hpp>
#include <cmath>

#include "server/base/check.h"

namespace penstock {
namespace {

// κ: under the alternative a half share strays by √(¼ / (κ + 1)) = 2.2 %. Less finds small
// deviations later, more large ones.
constexpr double kConcentration = 500;

}  // namespace

double SampleRatioPValue(std::span<const std::int64_t> counts, std::span<const int> shares) {
  PENSTOCK_CHECK_EQ(counts.size(), shares.size());
  double total = 0;
  for (const int share : shares) {
    PENSTOCK_CHECK_GE(share, 0);
    total += share;
  }
  PENSTOCK_CHECK_GT(total, 0);

  double units = 0, log_factor = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    PENSTOCK_CHECK_GE(counts[i], 0);
    if (counts[i] == 0) continue;
    if (shares[i] == 0) return 0;
    const double n = static_cast<double>(counts[i]);
    const double theta = shares[i] / total;
    const double alpha = kConcentration * theta;
    log_factor += boost::math::lgamma(alpha + n) - boost::math::lgamma(alpha) - n * std::log(theta);
    units += n;
  }
  log_factor -= boost::math::lgamma(kConcentration + units) - boost::math::lgamma(kConcentration);
  return std::min(1.0, std::exp(-log_factor));
}

}  // namespace penstock
