// Samples of experiments from a Prometheus server.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/experiment_figures.h"

namespace penstock {

// The samples that an answer of /api/v1/query holds. INVALID_ARGUMENT: it is none, or it says that
// the query failed.
absl::StatusOr<std::vector<ExperimentSample>> ParseSamples(const std::string& json);

// The path and query of the newest samples of `experiment`'s penstock_experiment_* series.
std::string SamplesPath(const std::string& experiment);

// Those samples, from http://HOST:PORT. INVALID_ARGUMENT: `url` is no such URL; UNAVAILABLE,
// DEADLINE_EXCEEDED, UNKNOWN: it does not answer.
absl::StatusOr<std::vector<ExperimentSample>> QuerySamples(const std::string& url,
                                                           const std::string& experiment);

}  // namespace penstock
