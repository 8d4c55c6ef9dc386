// Whether `paired_logprob` can be measured for the experiments that name it.
#pragma once

#include <string>
#include <vector>

#include "penstock/v1/config.pb.h"
#include "server/config/violations.h"

namespace penstock {

// Texts are scored where `experiments.paired_scoring.share` and `max_cost` are above 0 and a tenant
// of the audience has `paired_scoring`. A primary metric that the first two forbid is a violation,
// and a guardrail that either forbids: it would never halt anything.
void CheckPairedScoring(const v1::ServerConfig& config, Violations* violations);

// Why an experiment's primary metric is not measured, as a clause for its report; empty: it is.
std::string WhyUnmeasured(const v1::ServerConfig& config, const v1::ExperimentConfig& experiment);

// A primary metric that waits for a tenant to opt in, one line each: valid, since a tenant may do
// so at any reload, but until then no report comes to a verdict.
std::vector<std::string> PairedScoringWarnings(const v1::ServerConfig& config);

}  // namespace penstock
