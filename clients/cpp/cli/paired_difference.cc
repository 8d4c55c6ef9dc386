#include "clients/cpp/cli/paired_difference.h"

#include <boost/math/distributions/students_t.hpp>
#include <cmath>

namespace penstock::client {

PairedDifference Compare(const std::vector<PairedDocument>& documents, double confidence) {
  PairedDifference result;
  result.documents = static_cast<int>(documents.size());
  double difference = 0;
  for (const PairedDocument& document : documents) {
    result.tokens += document.tokens;
    difference += document.other - document.base;
    result.better += document.other > document.base;
  }
  const auto tokens = static_cast<double>(result.tokens);
  result.per_token = difference / tokens;
  if (result.documents < 2) return result;
  double squares = 0;
  for (const PairedDocument& document : documents) {
    const double residual =
        document.other - document.base - result.per_token * static_cast<double>(document.tokens);
    squares += residual * residual;
  }
  const auto n = static_cast<double>(result.documents);
  const double error = std::sqrt(n / (n - 1) * squares) / tokens;
  PairedDifference::Interval interval{.low = result.per_token, .high = result.per_token};
  if (error > 0) {
    const boost::math::students_t student(n - 1);
    const double width = error * boost::math::quantile(student, 0.5 + confidence / 2);
    interval.low -= width;
    interval.high += width;
    interval.p_value =
        2 * boost::math::cdf(boost::math::complement(student, std::abs(result.per_token) / error));
  } else if (result.per_token != 0) {
    interval.p_value = 0;  // the same difference in every document
  }
  result.interval = interval;
  return result;
}

}  // namespace penstock::client
