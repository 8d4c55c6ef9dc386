// Is an arm different from control, and by how much: intervals and p-values that hold at every
// look.
//
// Asymptotic confidence sequences with Robbins' normal mixture: Waudby-Smith, Arbour, Sinha,
// Kennedy, Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences", Annals
// of Statistics 52(6), 2024 (arXiv:2103.06476), Theorem 2.2, eq. 8, applied to the difference of
// two arms of a randomized experiment as in its section 3; to ratios by the delta method, which is
// sequential too (Proposition 3.5). With t units in both arms, an estimate θ̂ and its
// standard error se, the interval
//   θ̂ ± se c(t),   c(t)² = 2 (tρ² + 1) / (tρ²) · ln(√(tρ² + 1) / α)
// misses θ at any t, ever, with probability α at most, as the first look comes late enough. The
// p-value is one over the mixture martingale, min(1, √(tρ² + 1) exp(−tρ² z² / (2 (tρ² + 1)))): the
// mixture likelihood ratio of Johari, Koomen, Pekelis, Walsh, "Always Valid Inference", Operations
// Research 70(3), 2022 (arXiv:1512.04922v3, eq. 7 to 9), for normal values and a normal mixture.
//
// Why this one: latencies have no known bound or variance, which exact sequences need; only sums
// over units are kept, and this needs no more; and one theorem serves means and ratios.
//
// Two departures toward caution, since few units of a heavy tail are not yet normal:
// - An arm's variance is never taken below the one pooled over both arms. A small arm that has not
//   met its rare large values yet would otherwise seem both low and certain.
// - Nothing is said before each arm has `min_effective_units`.
#pragma once

#include <cstdint>
#include <optional>

#include "server/experiments/statistics/unit_moments.h"

namespace penstock {

struct SequenceOptions {
  // Probability of ever missing the truth. With several treatments under one verdict, divide it by
  // their number (Bonferroni).
  double alpha = 0.05;
  // The interval is narrowest when both arms together have so many units; chosen before the start.
  double tuned_units = 5000;
  double min_effective_units = 30;  // in each arm
};

struct Interval {
  double lower = 0;
  double upper = 0;
  bool Contains(double value) const { return lower <= value && value <= upper; }
};

// A comparison in parts of |control|.
struct RelativeComparison {
  double difference = 0;
  // By Fieller (J. R. Stat. Soc. B 16, 1954): the ratios that are not rejected, as in von Luxburg,
  // Franz, Statistica Sinica 19, 2009 (arXiv:0711.0198), eq. 2.1 and Theorem 3, with c(t) for the
  // quantile of t. Leaves out 0 as the other does.
  Interval interval;
  double detectable = 0;
};

struct Comparison {
  double difference = 0;  // treatment − control
  double standard_error = 0;
  Interval interval;   // of the difference
  double p_value = 1;  // that there is none; at most alpha exactly where `interval` leaves out 0
  // The smallest true difference of either sign that would stand out (interval without 0) at a look
  // with as many units as now in four of five experiments.
  double detectable = 0;

  std::optional<RelativeComparison> relative;  // unset while control is not told from zero
};

class ConfidenceSequence {
 public:
  // Alpha in (0, 1), the others positive.
  explicit ConfidenceSequence(const SequenceOptions& options);

  // c(t): half the interval's width in standard errors, with `units` in both arms together.
  double Radius(double units) const;

  // Of an estimate `z` standard errors from the null, with `units` in both arms together.
  double PValue(double units, double z) const;

  // nullopt while an arm has too few effective units, or neither varies.
  std::optional<Comparison> Compare(const ArmEstimate& treatment, const ArmEstimate& control) const;

  // Of a difference that was taken within each unit (paired scoring): its mean against zero, by the
  // same theorem with t the number of units. `relative` stays unset: there is no control's value.
  std::optional<Comparison> AgainstZero(const ArmEstimate& difference) const;

 private:
  SequenceOptions options_;
  double mixture_variance_;  // ρ²
};

}  // namespace penstock
