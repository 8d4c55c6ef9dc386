// What an experiment says about one arm: a word about the primary metric alone.
#pragma once

#include <optional>
#include <string_view>

#include "server/experiments/statistics/confidence_sequence.h"

namespace penstock {

enum class Better { kHigher, kLower };

enum class Verdict {
  kNotEnoughUnits,      // nothing can be told yet
  kBetter,              // than control, beyond doubt
  kWorse,               // than control, beyond doubt
  kNoLargerDifference,  // whatever the difference is, it is smaller than min_effect
  kWithheld,            // the arms do not get their shares of units: nothing can be trusted
};

// `interval` of the primary metric's difference to control (nullopt: too few units), `min_effect`
// positive and in the same unit. A difference that is told from zero yet surely smaller than
// min_effect is kNoLargerDifference: it does not matter to whoever set min_effect.
Verdict Judge(const std::optional<Interval>& interval, Better better, double min_effect,
              double sample_ratio_p_value);

std::string_view VerdictName(Verdict verdict);   // "not_enough_units", …: stable, for programs
std::string_view VerdictWords(Verdict verdict);  // a clause after the arm's name, for people

}  // namespace penstock
