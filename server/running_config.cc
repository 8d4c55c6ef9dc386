#include "server/running_config.h"

#include <utility>

#include "routers/package/router_catalogue.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/config/config.h"
#include "server/config/reload.h"
#include "server/config/warnings.h"
#include "server/configured_routers.h"
#include "server/policy_of_config.h"

namespace penstock {

absl::StatusOr<std::unique_ptr<RunningConfig>> RunningConfig::Load(
    std::string file, std::vector<std::string> overrides) {
  std::unique_ptr<RunningConfig> running(new RunningConfig(std::move(file), std::move(overrides)));
  PENSTOCK_ASSIGN_OR_RETURN(running->config_, running->Read());
  return running;
}

absl::StatusOr<v1::ServerConfig> RunningConfig::Read() const {
  return LoadConfig(
      file_, {.overrides = overrides_, .built_in_routers = {std::string(kCheckpointRouter)}});
}

RunningConfig::RunningConfig(std::string file, std::vector<std::string> overrides)
    : file_(std::move(file)), overrides_(std::move(overrides)) {}

v1::ServerConfig RunningConfig::Get() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return config_;
}

void RunningConfig::Attach(Parts parts) {
  parts_ = std::move(parts);
  const v1::ServerConfig config = Get();
  Apply(config);
  ConfigureShadow(config);
}

void RunningConfig::PutInForce() {
  std::lock_guard<std::mutex> lock(policy_mutex_);
  PutInForce(Get());
}

void RunningConfig::PutInForce(const v1::ServerConfig& config) {
  const ModelSpec& spec = parts_.engine->model_spec();
  Policy policy = PolicyOfConfig(config, spec.name, spec.max_context);
  parts_.experiments->Configure(config, &policy);
  parts_.frontend->SetPolicy(std::move(policy));
}

// The policy of `config`, with what is halted.
void RunningConfig::Apply(const v1::ServerConfig& config) {
  std::lock_guard<std::mutex> lock(policy_mutex_);
  PutInForce(config);
  std::lock_guard<std::mutex> config_lock(mutex_);
  config_ = config;
}

void RunningConfig::ConfigureShadow(const v1::ServerConfig& config) {
  const ModelSpec& spec = parts_.engine->model_spec();
  const ShadowSampling shadow = ShadowOfConfig(config);
  if (shadow.share > 0 && !spec.shadow_routing) {
    Log(LogLevel::kWarning, "no shadow routing: this backend has none",
        {{"backend", spec.backend}, {"share", shadow.share}});
  }
  parts_.engine->SetShadowSampling(shadow);
}

absl::Status RunningConfig::Reload() {
  PENSTOCK_ASSIGN_OR_RETURN(const v1::ServerConfig updated, Read());
  const v1::ServerConfig running = Get();
  const ConfigReload reload = DiffForReload(running, updated);
  *parts_.allow_other_base = reload.effective.routers().allow_other_base();
  if (absl::Status loaded = LoadAdded(running, reload.effective, parts_.loader, parts_.routers);
      !loaded.ok()) {
    *parts_.allow_other_base = running.routers().allow_other_base();
    return loaded;
  }
  Apply(reload.effective);
  parts_.engine->SetMaxQueue(reload.effective.limits().max_queue());
  ConfigureShadow(reload.effective);
  parts_.telemetry->SetTenants(TenantNames(reload.effective));
  SetUpLog(reload.effective);
  UnloadRemoved(running, reload.effective, parts_.routers);
  for (const ConfigChange& change : reload.changes) {
    Log(change.at_restart ? LogLevel::kWarning : LogLevel::kInfo, "reload",
        {{"change", change.ToString()}});
  }
  Log(LogLevel::kInfo, "reloaded",
      {{"file", file_}, {"changes", static_cast<std::int64_t>(reload.changes.size())}});
  return absl::OkStatus();
}

void SetUpLog(const v1::ServerConfig& config) {
  SetLogFormat(config.log().format() == v1::LogConfig::FORMAT_JSON ? LogFormat::kJson
                                                                   : LogFormat::kText);
  for (const std::string& warning : ConfigWarnings(config, Clock::Real().Now())) {
    Log(LogLevel::kWarning, "configuration", {{"warning", warning}});
  }
}

std::vector<std::string> TenantNames(const v1::ServerConfig& config) {
  std::vector<std::string> names = {"default"};
  for (const v1::TenantConfig& tenant : config.tenants()) names.push_back(tenant.name());
  return names;
}

}  // namespace penstock
