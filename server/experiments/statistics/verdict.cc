#include "server/experiments/statistics/verdict.h"

#include "server/base/check.h"
#include "server/experiments/statistics/sample_ratio.h"

namespace penstock {

Verdict Judge(const std::optional<Interval>& interval, Better better, double min_effect,
              double sample_ratio_p_value) {
  PENSTOCK_CHECK_GT(min_effect, 0);
  if (sample_ratio_p_value <= kSampleRatioAlarm) return Verdict::kWithheld;
  if (!interval) return Verdict::kNotEnoughUnits;
  if (interval->lower > -min_effect && interval->upper < min_effect) {
    return Verdict::kNoLargerDifference;
  }
  if (interval->Contains(0)) return Verdict::kNotEnoughUnits;
  return (interval->lower > 0) == (better == Better::kHigher) ? Verdict::kBetter : Verdict::kWorse;
}

std::string_view VerdictName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kNotEnoughUnits:
      return "not_enough_units";
    case Verdict::kBetter:
      return "better";
    case Verdict::kWorse:
      return "worse";
    case Verdict::kNoLargerDifference:
      return "no_larger_difference";
    case Verdict::kWithheld:
      return "withheld";
  }
  PENSTOCK_CHECK(false) << "verdict " << static_cast<int>(verdict);
  return "";
}

std::string_view VerdictWords(Verdict verdict) {
  switch (verdict) {
    case Verdict::kNotEnoughUnits:
      return "may or may not differ from control: not enough units yet";
    case Verdict::kBetter:
      return "is better than control";
    case Verdict::kWorse:
      return "is worse than control";
    case Verdict::kNoLargerDifference:
      return "differs from control by less than the smallest effect that matters";
    case Verdict::kWithheld:
      return "cannot be judged: the arms do not get their shares of units";
  }
  PENSTOCK_CHECK(false) << "verdict " << static_cast<int>(verdict);
  return "";
}

}  // namespace penstock
