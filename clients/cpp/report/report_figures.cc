#include "clients/cpp/report/report_figures.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"

namespace penstock::client {
namespace {

constexpr double kLeastScale = 0.01, kMostScale = 1;

}  // namespace

std::string Figure(double value) { return absl::StrFormat("%.4g", value); }

std::string SignedFigure(double value) { return absl::StrFormat("%+.3g", value); }

std::string SignedPercent(double part) { return absl::StrFormat("%+.3g %%", 100 * part); }

std::string UtcTime(const google::protobuf::Timestamp& time) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", absl::FromUnixSeconds(time.seconds()),
                          absl::UTCTimeZone());
}

std::string TitleOf(const v1::MetricReport& metric) {
  return metric.unit().empty() ? metric.metric()
                               : absl::StrCat(metric.metric(), " (", metric.unit(), ")");
}

const v1::ArmReport* ControlOf(const v1::ExperimentReport& report) {
  for (const v1::ArmReport& arm : report.arms()) {
    if (arm.is_control()) return &arm;
  }
  return nullptr;
}

const v1::MetricReport* FindMetric(const v1::ArmReport& arm, const std::string& name) {
  for (const v1::MetricReport& metric : arm.metrics()) {
    if (metric.metric() == name) return &metric;
  }
  return nullptr;
}

std::vector<std::string> MetricsWithValues(const v1::ExperimentReport& report) {
  std::vector<std::string> names;
  if (report.arms().empty()) return names;
  for (const v1::MetricReport& metric : report.arms(0).metrics()) {
    const bool has =
        std::any_of(report.arms().begin(), report.arms().end(), [&](const v1::ArmReport& arm) {
          const v1::MetricReport* found = FindMetric(arm, metric.metric());
          return found != nullptr && (found->has_value() || found->has_p50());
        });
    if (has || metric.primary()) names.push_back(metric.metric());
  }
  return names;
}

bool HasTexts(const v1::ExperimentReport& report) {
  return std::any_of(report.arms().begin(), report.arms().end(), [](const v1::ArmReport& arm) {
    return arm.texts_scored() + arm.texts_dropped() > 0;
  });
}

std::string TokensPerText(const v1::ArmReport& arm) {
  if (arm.texts_scored() == 0) return "–";
  return absl::StrFormat(
      "%.1f", static_cast<double>(arm.text_tokens()) / static_cast<double>(arm.texts_scored()));
}

double PlotScale(const v1::ArmReport& arm) {
  double scale = kLeastScale;
  for (const v1::MetricReport& metric : arm.metrics()) {
    const v1::ArmComparison& found = metric.comparison();
    if (!metric.has_comparison() || !found.has_relative_lower()) continue;
    scale = std::max({scale, std::abs(found.relative_lower()), std::abs(found.relative_upper())});
  }
  return std::min(scale, kMostScale);
}

}  // namespace penstock::client
