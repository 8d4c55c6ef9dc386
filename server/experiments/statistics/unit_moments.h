// What an arm's units say about one metric, in constant memory, mergeable across replicas.
//
// A unit (the unit of randomization: a user, a session, …) contributes one pair once, when its
// window closes: its numerator y (seconds of latency, errors, a sum of log-probabilities) and its
// denominator x (requests, tokens). The metric is the ratio of sums R = Σy / Σx. A metric per unit
// is the same with x = 1. Requests and tokens of one unit are not independent of each other; units
// are. Therefore the variance of R comes from the units, by the delta method:
//   Var(R) ≈ Var(y − R x) / (n x̄²)
// (Deng, Knoblich, Lu, "Applying the Delta Method in Metric Analytics", KDD 2018, section 3;
// arXiv:1803.06336, eq. 6).
#pragma once

#include <cstdint>
#include <optional>

namespace penstock {

// An arm's value of a metric, and how much one unit's part in it varies.
struct ArmEstimate {
  std::int64_t units = 0;  // n
  double value = 0;        // R
  double variance = 0;     // of one unit's (y − R x) / x̄; that of R itself is variance / n
  // (Σx)² / Σx²: how many units of equal weight these are worth. A few units with nearly all
  // requests are few units, however many others there are.
  double effective_units = 0;
};

// Plain sums over units, as counters carry them: those of two replicas add up.
struct UnitSums {
  std::int64_t units = 0;
  double sum = 0;                      // Σy
  double sum_squares = 0;              // Σy²
  double denominator_sum = 0;          // Σx
  double denominator_sum_squares = 0;  // Σx²
  double cross_sum = 0;                // Σxy
};

// Means and centred second moments, updated by unit (Welford, Technometrics 1962) and merged
// (Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
// Variances", 1979, eq. 2.1): no cancellation, and the same up to rounding in every order.
class UnitMoments {
 public:
  UnitMoments() = default;

  // The whole state, as it travels: nothing is lost in it.
  struct State {
    std::int64_t units = 0;
    double mean_y = 0, mean_x = 0;
    double moment_yy = 0, moment_xx = 0, moment_xy = 0;
  };
  static UnitMoments FromState(const State& state);
  State state() const { return {units_, mean_y_, mean_x_, moment_yy_, moment_xx_, moment_xy_}; }

  // From plain sums. Digits cancel where a mean is large against its spread.
  static UnitMoments FromSums(const UnitSums& sums);

  void Add(double numerator, double denominator = 1);
  void Merge(const UnitMoments& other);

  std::int64_t units() const { return units_; }
  UnitSums Sums() const;

  // nullopt with fewer than two units, or where the denominators do not sum to more than zero.
  std::optional<ArmEstimate> Estimate() const;

 private:
  std::int64_t units_ = 0;
  double mean_y_ = 0, mean_x_ = 0;
  double moment_yy_ = 0, moment_xx_ = 0, moment_xy_ = 0;  // Σ(y−ȳ)², Σ(x−x̄)², Σ(x−x̄)(y−ȳ)
};

}  // namespace penstock
