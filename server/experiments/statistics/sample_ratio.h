// Do the arms get the units that their shares promise? If not, something loses units by arm, and no
// comparison between the arms can be trusted.
//
// The sequential test of Lindon and Malek, "Anytime-Valid Inference for Multinomial Count Data",
// NeurIPS 2022 (arXiv:2011.03567), section 2.2: the Bayes factor of a Dirichlet-multinomial with
// parameters α_i = κ θ_i against the multinomial with the configured shares θ,
//   Γ(κ) / Γ(κ + n) · Π_i Γ(α_i + n_i) / Γ(α_i) · Π_i θ_i^(−n_i),
// is a martingale that starts at 1 where the shares are true (Theorem 2.1). So it ever reaches 1/u
// with probability u at most (Theorem 2.2), and one over it is a p-value at every look.
#pragma once

#include <cstdint>
#include <span>

namespace penstock {

inline constexpr double kSampleRatioAlarm = 0.001;

// `counts` [arms] first exposures, exact; `shares` [arms] in any unit, not negative, some positive.
// A unit in an arm without a share has p-value 0.
double SampleRatioPValue(std::span<const std::int64_t> counts, std::span<const int> shares);

}  // namespace penstock
