// The configuration in force, and how the file's next one comes into force.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "penstock/v1/config.pb.h"
#include "server/engine/engine.h"
#include "server/engine/frontend.h"
#include "server/engine/router_set.h"
#include "server/live_experiments.h"
#include "server/telemetry/prometheus_telemetry.h"

namespace penstock {

// Thread-safe, but for Attach, which comes first; reloads come one after the other.
class RunningConfig {
 public:
  // What a configuration is put in force in. All outlive the last call.
  struct Parts {
    Engine* engine = nullptr;
    Frontend* frontend = nullptr;
    RouterSet* routers = nullptr;
    LiveExperiments* experiments = nullptr;
    PrometheusTelemetry* telemetry = nullptr;
    RouterLoader loader;
    std::shared_ptr<std::atomic<bool>> allow_other_base;  // what `loader` goes by
  };

  // Of the file and `path=value` overrides. Errors as LoadConfig.
  static absl::StatusOr<std::unique_ptr<RunningConfig>> Load(std::string file,
                                                             std::vector<std::string> overrides);

  v1::ServerConfig Get() const;

  // Puts what was loaded in force.
  void Attach(Parts parts);

  // Puts it in force again, with what is halted by now.
  void PutInForce();

  // What a reload may change of the file as it is now. After an error, which the caller tells, the
  // running configuration stays.
  absl::Status Reload();

 private:
  RunningConfig(std::string file, std::vector<std::string> overrides);

  absl::StatusOr<v1::ServerConfig> Read() const;  // the file, as it is now
  // With policy_mutex_ held.
  void PutInForce(const v1::ServerConfig& config);
  void Apply(const v1::ServerConfig& config);
  void ConfigureShadow(const v1::ServerConfig& config);

  const std::string file_;
  const std::vector<std::string> overrides_;
  Parts parts_;

  std::mutex policy_mutex_;  // one policy is put into force at a time; taken before mutex_
  mutable std::mutex mutex_;
  v1::ServerConfig config_;
};

// The log as `config` wants it, and there what is valid in it, but hardly wanted.
void SetUpLog(const v1::ServerConfig& config);

// Those that have series of their own.
std::vector<std::string> TenantNames(const v1::ServerConfig& config);

}  // namespace penstock
