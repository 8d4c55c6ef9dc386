// Whether every arm gives paired scoring as many texts as the others.
#pragma once

#include <optional>
#include <string>

#include "server/experiments/ledger/snapshot.h"
#include "server/experiments/report/report.h"

namespace penstock {

// PairedShare draws alike from every arm: what a unit leaves to be scored, times its arm's share of
// the units, has one mean in all arms. The p-value that it has, treatments against control, the
// smallest of them times their number (Bonferroni); units are what is compared, since texts of one
// user are not independent. Valid at every look, as ConfidenceSequence::Compare is. 1: nothing was
// scored, or too few units have entered.
double TextRatioPValue(const LedgerSnapshot& snapshot, const ReportOptions& options);

// The warning, where that p-value is at most kSampleRatioAlarm; nullopt: it is not, or units may be
// split.
std::optional<std::string> UnlikeTexts(const LedgerSnapshot& snapshot,
                                       const ReportOptions& options);

}  // namespace penstock
