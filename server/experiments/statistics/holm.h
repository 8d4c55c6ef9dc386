// Several questions at once: Holm, "A Simple Sequentially Rejective Multiple Test Procedure",
// Scandinavian Journal of Statistics 6(2), 1979, p. 67. Needs no independence between the p-values,
// and always-valid ones stay so: at any time that one stops at they are p-values like others
// (Johari et al., arXiv:1512.04922v3, section 7).
#pragma once

#include <span>
#include <vector>

namespace penstock {

// Adjusted p-values in the order given: rejecting those at most alpha wrongly rejects any true null
// with probability alpha at most.
std::vector<double> HolmAdjusted(std::span<const double> p_values);

}  // namespace penstock
