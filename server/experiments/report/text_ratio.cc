#include "server/experiments/report/text_ratio.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/experiments/bucketing.h"
#include "server/experiments/statistics/confidence_sequence.h"
#include "server/experiments/statistics/sample_ratio.h"

namespace penstock {
namespace {

// Texts per unit times the arm's share of the units.
std::optional<ArmEstimate> TextsOf(const ArmSnapshot& arm) {
  std::optional<ArmEstimate> estimate = arm.entered.texts.Estimate();
  if (!estimate) return std::nullopt;
  const double share = static_cast<double>(arm.share) / kBuckets;
  estimate->value *= share;
  estimate->variance *= share * share;
  return estimate;
}

}  // namespace

double TextRatioPValue(const LedgerSnapshot& snapshot, const ReportOptions& options) {
  const auto control =
      std::find_if(snapshot.arms.begin(), snapshot.arms.end(),
                   [&](const ArmSnapshot& arm) { return arm.name == snapshot.control; });
  if (control == snapshot.arms.end() || snapshot.arms.size() < 2) return 1;
  const std::optional<ArmEstimate> base = TextsOf(*control);
  if (!base) return 1;
  const auto treatments = static_cast<double>(snapshot.arms.size()) - 1;
  const ConfidenceSequence sequence(
      {.alpha = kSampleRatioAlarm / treatments, .tuned_units = options.tuned_units});
  double least = 1;
  for (const ArmSnapshot& arm : snapshot.arms) {
    if (arm.name == snapshot.control) continue;
    const std::optional<ArmEstimate> estimate = TextsOf(arm);
    if (!estimate) continue;
    if (const auto found = sequence.Compare(*estimate, *base)) {
      least = std::min(least, treatments * found->p_value);
    }
  }
  return least;
}

std::optional<std::string> UnlikeTexts(const LedgerSnapshot& snapshot,
                                       const ReportOptions& options) {
  if (options.units_may_be_split) return std::nullopt;
  const double p_value = TextRatioPValue(snapshot, options);
  if (p_value > kSampleRatioAlarm) return std::nullopt;
  std::vector<std::string> counts;
  for (const ArmSnapshot& arm : snapshot.arms) {
    const WrittenTexts& texts = arm.totals.texts;
    counts.push_back(absl::StrFormat("%s wrote %d of those scored and %d of those dropped",
                                     arm.name, texts.scored, texts.dropped));
  }
  return absl::StrFormat(
      "TEXTS ARE NOT SAMPLED ALIKE (p = %.2g, alarm at %.3g): %s. paired_logprob favours the arm "
      "that gave more. Texts are dropped by arm, or its units ask more or less often; a halted arm "
      "writes none.",
      p_value, kSampleRatioAlarm, absl::StrJoin(counts, ", "));
}

}  // namespace penstock
