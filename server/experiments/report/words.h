// The report's sentences.
#pragma once

#include <string>
#include <vector>

#include "server/experiments/report/report.h"

namespace penstock {

// "0.0412 s", "1.25 nats/token", "3.1 %" for rates.
std::string WithUnit(double value, const std::string& unit);

// The verdict on an arm, with the numbers that it rests on.
std::string VerdictSentence(const ExperimentReport& report, const ArmReport& arm);

// What the reader must know before any number.
std::vector<std::string> Warnings(const LedgerSnapshot& snapshot, const ExperimentReport& report,
                                  const ReportOptions& options);

std::string SummaryOf(const ExperimentReport& report);

// Every method that the report rests on.
std::vector<Method> MethodsOf(const ExperimentReport& report, const ReportOptions& options);

}  // namespace penstock
