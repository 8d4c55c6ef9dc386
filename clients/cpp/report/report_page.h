// An experiment's report as one HTML page that needs nothing else.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "penstock/v1/report.pb.h"

namespace penstock::client {

// Verdicts, arms, and for each treatment a plot (inline SVG) of relative differences with their
// intervals, the primary one first. Names are escaped: they come from a configuration file.
std::string ReportPage(const v1::ExperimentReport& report);

// The page as the file `path` of `--html`. INVALID_ARGUMENT naming it and why it cannot be written.
absl::Status WriteReportPage(const v1::ExperimentReport& report, const std::string& path);

}  // namespace penstock::client
