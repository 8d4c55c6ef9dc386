// What the text and the page have in common.
#pragma once

#include <google/protobuf/timestamp.pb.h>

#include <string>
#include <vector>

#include "penstock/v1/report.pb.h"

namespace penstock::client {

// Four significant digits: "0.0412", "1.2e-05".
std::string Figure(double value);
// With its sign: "+0.0412".
std::string SignedFigure(double value);
// Of a part: "+3.1 %".
std::string SignedPercent(double part);
std::string UtcTime(const google::protobuf::Timestamp& time);

// "latency (s)".
std::string TitleOf(const v1::MetricReport& metric);

// The report's arm that the others are compared with; null: none.
const v1::ArmReport* ControlOf(const v1::ExperimentReport& report);
// Null: the arm has no such metric.
const v1::MetricReport* FindMetric(const v1::ArmReport& arm, const std::string& name);

// The metrics of some arm that have a value, in the report's order.
std::vector<std::string> MetricsWithValues(const v1::ExperimentReport& report);

// Texts were drawn to be scored under other arms.
bool HasTexts(const v1::ExperimentReport& report);
// "17.3": tokens of a text that was scored; "–": none was.
std::string TokensPerText(const v1::ArmReport& arm);

// The largest relative bound over `arm`'s comparisons, at least 1 %, at most 100 %: the scale of
// its plot.
double PlotScale(const v1::ArmReport& arm);

}  // namespace penstock::client
