// What may be asked, and by whom: the reloadable part of the configuration, as the frontend needs
// it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "server/experiments/assigner.h"
#include "server/experiments/experiment.h"

namespace penstock {

// Bounds on one request. Each refusal names field, value and bound.
struct Limits {
  std::int64_t max_prompt_tokens = 7168;
  std::int64_t max_new_tokens = 4096;
  std::int64_t max_context = 8192;  // prompt and new tokens together: engine.max_context
  std::int64_t max_choices = 16;
  std::int64_t max_stop_strings = 16;
  std::int64_t max_stop_bytes = 256;  // of one stop string
  std::int64_t max_stop_token_ids = 64;
  std::int64_t max_logit_bias = 1024;  // entries
  std::int64_t max_logprobs = 20;
  std::int64_t max_prompt_bytes = 1 << 22;
  std::int64_t max_response_queue = 1024;  // messages that wait for a slow reader
};

// The tenant of requests that name none.
inline constexpr char kDefaultTenant[] = "default";

struct TenantPolicy {
  TenantRouting routing;
  double weight = 1;
  std::optional<double> requests_per_second, tokens_per_second;  // unset: unlimited
  std::optional<std::int64_t> concurrent;
  int priority_ceiling = 9;
  bool paired_scoring = false;  // its texts may be scored again under an experiment's other arms
};

struct Policy {
  Limits limits;
  std::string default_router;  // of requests that name none, whose tenant has no pin
  std::string traffic_salt;
  std::vector<Experiment> experiments;
  std::map<std::string, TenantPolicy> tenants;  // `default` is always known
  bool log_prompts = false;
  std::string model_name;
};

}  // namespace penstock
