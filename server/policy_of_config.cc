#include "server/policy_of_config.h"

#include "server/config/duration.h"
#include "server/config/values.h"

namespace penstock {
namespace {

UnitKind UnitKindOf(v1::ExperimentConfig::Unit unit) {
  switch (unit) {
    case v1::ExperimentConfig::UNIT_TENANT:
      return UnitKind::kTenant;
    case v1::ExperimentConfig::UNIT_SESSION:
      return UnitKind::kSession;
    case v1::ExperimentConfig::UNIT_REQUEST:
      return UnitKind::kRequest;
    default:
      return UnitKind::kUser;
  }
}

Experiment ExperimentOf(const v1::ExperimentConfig& config) {
  Experiment experiment;
  experiment.name = config.name();
  experiment.audience = {config.audience().tenants().begin(), config.audience().tenants().end()};
  experiment.unit = UnitKindOf(config.unit());
  experiment.range_first = config.range().first();
  experiment.range_size = config.range().size();
  experiment.exposed = ParseExposure(config.exposure(), config.range().size()).value_or(0);
  experiment.salt = config.salt();
  for (const v1::ArmConfig& arm : config.arms()) {
    experiment.arms.push_back({arm.name(), arm.router(), arm.share(), arm.halted()});
  }
  experiment.control = config.control();
  experiment.start = ParseTimestamp(config.start()).value_or(absl::InfinitePast());
  experiment.end = ParseTimestamp(config.end()).value_or(absl::InfiniteFuture());
  if (config.mode() == v1::ExperimentConfig::MODE_SWITCHBACK) {
    experiment.switchback_slice = ToDuration(config.switchback().slice());
  }
  return experiment;
}

}  // namespace

ShadowSampling ShadowOfConfig(const v1::ServerConfig& config) {
  const v1::ShadowConfig& shadow = config.experiments().shadow();
  return {.share = shadow.share(),
          .max_cost = shadow.max_cost(),
          .routers = {shadow.routers().begin(), shadow.routers().end()}};
}

PairedSampling PairedOfConfig(const v1::ServerConfig& config) {
  const v1::PairedScoringConfig& paired = config.experiments().paired_scoring();
  return {
      .share = paired.share(), .max_cost = paired.max_cost(), .max_waiting = paired.max_waiting()};
}

std::vector<Experiment> ExperimentsOf(const v1::ServerConfig& config) {
  std::vector<Experiment> experiments;
  for (const v1::ExperimentConfig& experiment : config.experiments().list()) {
    experiments.push_back(ExperimentOf(experiment));
  }
  return experiments;
}

Policy PolicyOfConfig(const v1::ServerConfig& config, const std::string& model_name,
                      int max_context) {
  const v1::LimitsConfig& limits = config.limits();
  Policy policy;
  policy.model_name = model_name;
  policy.default_router = config.routers().default_();
  policy.log_prompts = config.log().prompts();
  policy.limits = {.max_prompt_tokens = limits.max_prompt_tokens(),
                   .max_new_tokens = limits.max_new_tokens(),
                   .max_context = max_context,
                   .max_choices = limits.max_n(),
                   .max_stop_strings = limits.max_stop_strings(),
                   .max_stop_bytes = limits.max_stop_string_bytes(),
                   .max_stop_token_ids = limits.max_stop_token_ids(),
                   .max_logit_bias = limits.max_logit_bias(),
                   .max_logprobs = limits.max_logprobs(),
                   .max_prompt_bytes = limits.max_message_bytes(),
                   .max_response_queue = limits.max_stream_queue()};
  policy.traffic_salt = config.experiments().traffic_salt();
  policy.experiments = ExperimentsOf(config);
  policy.tenants["default"];
  for (const v1::TenantConfig& tenant : config.tenants()) {
    TenantPolicy& entry = policy.tenants[tenant.name()];
    if (tenant.routers_size() > 0) {
      entry.routing.allowed.emplace(tenant.routers().begin(), tenant.routers().end());
    }
    entry.routing.pin = tenant.pin();
    entry.weight = tenant.weight();
    entry.priority_ceiling = tenant.priority_ceiling();
    entry.paired_scoring = tenant.paired_scoring();
    if (tenant.requests_per_second() > 0) entry.requests_per_second = tenant.requests_per_second();
    if (tenant.tokens_per_second() > 0) entry.tokens_per_second = tenant.tokens_per_second();
    if (tenant.concurrent() > 0) entry.concurrent = tenant.concurrent();
  }
  return policy;
}

std::vector<Guardrail> GuardrailsOfConfig(const v1::ExperimentConfig& experiment) {
  std::vector<Guardrail> guardrails;
  for (const v1::GuardrailConfig& config : experiment.guardrails()) {
    Guardrail& guardrail = guardrails.emplace_back();
    guardrail.metric = config.metric();
    if (config.has_max()) guardrail.max = config.max();
    if (config.has_min()) guardrail.min = config.min();
    guardrail.window = ToDuration(config.window());
    guardrail.min_requests = config.min_requests();
  }
  return guardrails;
}

}  // namespace penstock
