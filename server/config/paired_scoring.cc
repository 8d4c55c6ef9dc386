#include "server/config/paired_scoring.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/config/schema.h"

namespace penstock {
namespace {

constexpr char kMetric[] = "paired_logprob";

// The fields that keep every text from being scored.
std::vector<std::string> SwitchedOff(const v1::ServerConfig& config) {
  const v1::PairedScoringConfig& scoring = config.experiments().paired_scoring();
  std::vector<std::string> fields;
  if (scoring.share() <= 0) fields.emplace_back("experiments.paired_scoring.share above 0");
  if (scoring.max_cost() <= 0) fields.emplace_back("experiments.paired_scoring.max_cost above 0");
  return fields;
}

bool SomeTenantAllows(const v1::ServerConfig& config, const v1::ExperimentConfig& experiment) {
  const auto& audience = experiment.audience().tenants();
  return std::any_of(
      config.tenants().begin(), config.tenants().end(), [&](const v1::TenantConfig& tenant) {
        return tenant.paired_scoring() &&
               std::find(audience.begin(), audience.end(), tenant.name()) != audience.end();
      });
}

std::string OptIn(const v1::ExperimentConfig& experiment) {
  return absl::StrCat("tenants[].paired_scoring true for one of its audience (",
                      absl::StrJoin(experiment.audience().tenants(), ", "), ")");
}

std::string PathOf(int experiment, std::string_view field) {
  return JoinPath(IndexPath("experiments.list", experiment), field);
}

}  // namespace

void CheckPairedScoring(const v1::ServerConfig& config, Violations* violations) {
  const std::vector<std::string> off = SwitchedOff(config);
  for (int i = 0; i < config.experiments().list_size(); ++i) {
    const v1::ExperimentConfig& experiment = config.experiments().list(i);
    if (experiment.primary().metric() == kMetric && !off.empty()) {
      violations->Add(PathOf(i, "primary.metric"), QuoteValue(kMetric),
                      absl::StrCat("another measure, or ", absl::StrJoin(off, " and "),
                                   ": no text is scored, so nothing would ever be decided"));
    }
    std::vector<std::string> missing = off;
    if (!SomeTenantAllows(config, experiment)) missing.push_back(OptIn(experiment));
    if (missing.empty()) continue;
    for (int j = 0; j < experiment.guardrails_size(); ++j) {
      if (experiment.guardrails(j).metric() != kMetric) continue;
      violations->Add(JoinPath(IndexPath(PathOf(i, "guardrails"), j), "metric"),
                      QuoteValue(kMetric),
                      absl::StrCat("another measure, or ", absl::StrJoin(missing, " and "),
                                   ": no text is scored, so it would never halt anything"));
    }
  }
}

std::string WhyUnmeasured(const v1::ServerConfig& config, const v1::ExperimentConfig& experiment) {
  if (experiment.primary().metric() != kMetric || SomeTenantAllows(config, experiment)) return "";
  return absl::StrCat(kMetric, " is not measured, since no tenant of the audience (",
                      absl::StrJoin(experiment.audience().tenants(), ", "),
                      ") has paired_scoring: true");
}

std::vector<std::string> PairedScoringWarnings(const v1::ServerConfig& config) {
  std::vector<std::string> warnings;
  for (int i = 0; i < config.experiments().list_size(); ++i) {
    const v1::ExperimentConfig& experiment = config.experiments().list(i);
    if (WhyUnmeasured(config, experiment).empty()) continue;
    warnings.push_back(absl::StrCat(PathOf(i, "primary.metric"), ": ", kMetric,
                                    " is not measured without ", OptIn(experiment),
                                    ": until then no text is scored and nothing is decided"));
  }
  return warnings;
}

}  // namespace penstock
