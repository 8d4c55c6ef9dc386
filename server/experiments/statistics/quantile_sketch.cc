#include "server/experiments/statistics/quantile_sketch.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/error.h"

namespace penstock {
namespace {

constexpr double kGamma =
    (1 + QuantileSketch::kRelativeError) / (1 - QuantileSketch::kRelativeError);

int BucketOf(double magnitude) {
  static const double log_gamma = std::log(kGamma);
  return static_cast<int>(
      std::ceil(std::log(std::min(magnitude, QuantileSketch::kLargest)) / log_gamma));
}

double ValueOf(int bucket) { return 2 * std::pow(kGamma, bucket) / (kGamma + 1); }

}  // namespace

absl::StatusOr<QuantileSketch> QuantileSketch::FromBuckets(Buckets buckets) {
  const int first = BucketOf(kSmallest), last = BucketOf(kLargest);
  QuantileSketch sketch;
  const auto add = [&](std::int64_t count) {
    if (count > std::numeric_limits<std::int64_t>::max() - sketch.count_) return false;
    sketch.count_ += count;
    return true;
  };
  if (buckets.zeros < 0) {
    return InvalidField("zeros", absl::StrCat(buckets.zeros), "a count");
  }
  add(buckets.zeros);
  for (const auto* signed_buckets : {&buckets.positive, &buckets.negative}) {
    for (const auto& [bucket, count] : *signed_buckets) {
      if (bucket < first || bucket > last) {
        return InvalidField("bucket", absl::StrCat(bucket), absl::StrCat(first, " to ", last));
      }
      if (count <= 0 || !add(count)) {
        return InvalidField(absl::StrCat("count of bucket ", bucket), absl::StrCat(count),
                            "a positive count; all of them fit 63 bits");
      }
    }
  }
  sketch.buckets_ = std::move(buckets);
  return sketch;
}

void QuantileSketch::Add(double value, std::int64_t times) {
  PENSTOCK_CHECK_GE(times, 0);
  if (!std::isfinite(value) || times == 0) return;
  count_ += times;
  const double magnitude = std::abs(value);
  if (magnitude < kSmallest) {
    buckets_.zeros += times;
  } else {
    (value > 0 ? buckets_.positive : buckets_.negative)[BucketOf(magnitude)] += times;
  }
}

std::int64_t QuantileSketch::CountUpTo(double bound) const {
  std::int64_t count = bound >= 0 ? buckets_.zeros : 0;
  for (const auto& [bucket, times] : buckets_.negative) {
    if (-ValueOf(bucket) <= bound) count += times;
  }
  for (const auto& [bucket, times] : buckets_.positive) {
    if (ValueOf(bucket) > bound) break;
    count += times;
  }
  return count;
}

void QuantileSketch::Merge(const QuantileSketch& other) {
  for (const auto& [bucket, count] : other.buckets_.positive) buckets_.positive[bucket] += count;
  for (const auto& [bucket, count] : other.buckets_.negative) buckets_.negative[bucket] += count;
  buckets_.zeros += other.buckets_.zeros;
  count_ += other.count_;
}

std::optional<double> QuantileSketch::Quantile(double q) const {
  PENSTOCK_CHECK_GE(q, 0);
  PENSTOCK_CHECK_LE(q, 1);
  if (count_ == 0) return std::nullopt;
  auto left = static_cast<std::int64_t>(std::floor(q * static_cast<double>(count_ - 1)));
  const auto& negative = buckets_.negative;
  for (auto it = negative.rbegin(); it != negative.rend(); ++it) {
    if ((left -= it->second) < 0) return -ValueOf(it->first);
  }
  if ((left -= buckets_.zeros) < 0) return 0;
  for (const auto& [bucket, count] : buckets_.positive) {
    if ((left -= count) < 0) return ValueOf(bucket);
  }
  // q (n − 1) may round up past the last value when counts exceed 53 bits.
  const auto& positive = buckets_.positive;
  return positive.empty() ? 0 : ValueOf(positive.rbegin()->first);
}

}  // namespace penstock
