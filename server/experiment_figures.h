// An experiment's sums over units as Prometheus carries them, and back.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/experiments/ledger/snapshot.h"
#include "server/telemetry/events.h"

namespace penstock {

ExperimentFigures FiguresOf(const LedgerSnapshot& snapshot, double sample_ratio_p_value);

// One sample of a penstock_experiment_* series.
struct ExperimentSample {
  std::string name;
  std::map<std::string, std::string> labels;
  double value = 0;
};

// What stands in the series beside names of metrics and of quantities.
inline constexpr char kPairedTokens[] = "paired_tokens";  // a denominator
inline constexpr char kPairedTexts[] = "paired_texts";    // per unit: ArmMoments::texts
inline constexpr char kPromptTokens[] = "prompt_tokens", kCancelled[] = "cancelled",
                      kLeftOut[] = "left_out", kTextsScored[] = "texts_scored",
                      kTextsDropped[] = "texts_dropped", kTextTokens[] = "text_tokens";

// What the samples of all replicas add up to, for `experiment` as it is configured; `revision`
// empty: the only one there is. A replica is a value of the label `instance`. FAILED_PRECONDITION:
// several revisions, or windows that differ, which are listed; NOT_FOUND: no sample of it.
absl::StatusOr<LedgerSnapshot> GatherFigures(const std::vector<ExperimentSample>& samples,
                                             const Experiment& experiment,
                                             const std::vector<std::string>& outcomes,
                                             const std::string& revision);

// By arm, on how many replicas it is halted; arms that are nowhere are left out.
std::map<std::string, int> GatherHalts(const std::vector<ExperimentSample>& samples,
                                       const std::string& revision);

}  // namespace penstock
