// Quantiles of a stream in bounded memory, mergeable: DDSketch (Masson, Rim, Lee, "DDSketch: A Fast
// and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees", VLDB 2019, section 2).
//
// Values fall into buckets (γ^(i−1), γ^i], γ = (1 + ε) / (1 − ε); any value of a bucket is within
// the relative error ε of 2γ^i / (γ + 1). Merging adds counts, so order and partition change
// nothing at all. Instead of the paper's collapsing of small buckets the range is fixed: at most
// 2,421 buckets a sign.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "absl/status/statusor.h"

namespace penstock {

class QuantileSketch {
 public:
  static constexpr double kRelativeError = 0.01;  // ε
  // Magnitudes below the first count as zero, those above the second as the second.
  static constexpr double kSmallest = 1e-9;
  static constexpr double kLargest = 1e12;

  // The sketch's whole state, as it travels.
  struct Buckets {
    std::map<int, std::int64_t> positive = {};  // i → count > 0
    std::map<int, std::int64_t> negative = {};  // of the magnitudes
    std::int64_t zeros = 0;
  };

  QuantileSketch() = default;

  // INVALID_ARGUMENT for a bucket out of range, or a count that is not positive or overflows.
  static absl::StatusOr<QuantileSketch> FromBuckets(Buckets buckets);

  // Values that are not finite are left out. `times`: not negative.
  void Add(double value, std::int64_t times = 1);
  void Merge(const QuantileSketch& other);

  std::int64_t count() const { return count_; }
  const Buckets& buckets() const { return buckets_; }

  // Values at most `bound`, within the relative error of it.
  std::int64_t CountUpTo(double bound) const;

  // The value of rank ⌊q (n − 1)⌋ (from 0) in ascending order, within the relative error, for
  // values in range. `q` in [0, 1]; nullopt of an empty sketch.
  std::optional<double> Quantile(double q) const;

 private:
  Buckets buckets_;
  std::int64_t count_ = 0;
};

}  // namespace penstock
