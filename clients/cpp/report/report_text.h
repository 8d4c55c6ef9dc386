// An experiment's report as text for a terminal.
#pragma once

#include <string>

#include "clients/cpp/terminal/terminal.h"
#include "penstock/v1/report.pb.h"

namespace penstock::client {

// Verdicts first, then arms, the primary metric, the others. Fits `terminal.columns`: a narrow one
// loses plots first, then quantiles; nothing that a verdict rests on.
std::string ReportText(const v1::ExperimentReport& report, const Terminal& terminal);

// `lower` to `upper` around `value` on an axis from −scale to scale, `width` ≥ 9 columns wide:
// "   ├──●─┤│     ". Ends beyond the axis are arrows.
std::string IntervalBar(double lower, double value, double upper, double scale, int width);

}  // namespace penstock::client
