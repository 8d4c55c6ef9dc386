// The reloadable part of the configuration as the frontend needs it.
#pragma once

#include <string>
#include <vector>

#include "penstock/v1/config.pb.h"
#include "server/engine/policy.h"
#include "server/experiments/guardrails/guardrails.h"
#include "server/experiments/paired_text.h"
#include "server/experiments/shadow_sampling.h"

namespace penstock {

// `config` is valid. `max_context`: what the model was loaded for.
Policy PolicyOfConfig(const v1::ServerConfig& config, const std::string& model_name,
                      int max_context);

ShadowSampling ShadowOfConfig(const v1::ServerConfig& config);
PairedSampling PairedOfConfig(const v1::ServerConfig& config);
// Those that the file lists.
std::vector<Guardrail> GuardrailsOfConfig(const v1::ExperimentConfig& experiment);
// Its experiments, in the file's order.
std::vector<Experiment> ExperimentsOf(const v1::ServerConfig& config);

}  // namespace penstock
