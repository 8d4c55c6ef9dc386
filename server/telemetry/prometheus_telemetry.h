// The server's events as Prometheus series. README.md lists and defines them.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "prometheus/histogram.h"
#include "server/base/clock.h"
#include "server/telemetry/expert_ledger.h"
#include "server/telemetry/exposition.h"
#include "server/telemetry/telemetry.h"

namespace penstock {

struct RouterSeries;  // router_series.h
class ShadowSeries;   // shadow_series.h

// An experiment, and which of its arms are halted.
struct ExperimentSeries {
  std::string experiment, revision;
  std::map<std::string, bool> halted = {};  // by arm

  bool operator==(const ExperimentSeries&) const = default;
};

// Events cost vector adds under one mutex; text is made outside of it, at a scrape. Series of a
// router exist from the OnRoutersLoaded that first names it to the one that no longer does; loaded
// again under the same name it starts from zero, which Prometheus takes as a counter reset. What a
// router that is not (or no longer) loaded still does counts under router="none" as far as requests
// go, and nowhere else.
class PrometheusTelemetry final : public Telemetry {
 public:
  struct Options {
    int num_experts = 0;                       // E
    int top_k = 0;                             // k
    std::vector<int> layers;                   // ascending indices of the layers that route
    std::vector<std::string> tenants;          // configured ones; all others count as `other`
    std::map<std::string, std::string> build;  // labels of penstock_build_info
    const Clock* clock = &Clock::Real();       // outlives the telemetry
    // What experiments have measured, asked for at every scrape; may be empty.
    std::function<std::vector<ExperimentFigures>()> experiments = {};
    // Bytes of the GPU's memory by kind, asked at each scrape, on its thread; null: no GPU serves.
    std::function<std::map<std::string, std::int64_t>()> gpu_memory = nullptr;
  };

  // INVALID_ARGUMENT naming the option: E or k not positive, k over E, layers not ascending.
  static absl::StatusOr<std::unique_ptr<PrometheusTelemetry>> Create(Options options);
  ~PrometheusTelemetry() override;

  void OnStep(const StepEvent& step) override;
  void OnRequestFinished(const RequestEvent& request) override;
  void OnLoad(const LoadEvent& load) override;
  void OnThrottled(std::string_view tenant, std::string_view reason) override;

  // The routers that are loaded now; series of all others disappear.
  void OnRoutersLoaded(const std::vector<std::string>& names);
  void OnReload(bool successful);
  // A finished request's text that was to be scored again under the other arms of its experiment;
  // result: "scored", "queue_full", "over_cost", "too_late" or "failed".
  void OnPairedText(std::string_view experiment, std::string_view result);

  // After a reload. Series of tenants that are no longer configured disappear.
  void SetTenants(const std::vector<std::string>& names);

  // The experiments whose series there are; those of others disappear.
  void SetExperiments(std::vector<ExperimentSeries> experiments);

  // The text of /metrics and of /metrics/experts ("text/plain; version=0.0.4"). Thread-safe.
  std::string ServeMetrics() const;
  std::string ServeExpertMetrics() const;

  // What every loaded router decided, in total and in the last 60 s; sorted by name. Thread-safe.
  std::vector<RouterExpertStats> Snapshot() const;

 private:
  // Label values of a counter, and its value.
  using LabelledCounts = std::map<std::pair<std::string, std::string>, std::int64_t>;

  explicit PrometheusTelemetry(Options options);

  std::int64_t NowSecond() const;
  RouterSeries* FindRouter(const std::string& name);       // null: not loaded
  std::string TenantLabel(std::string_view tenant) const;  // itself or "other"
  std::vector<std::string> RouterNames() const;
  void AddSteps(Exposition* exposition) const;
  void AddRouters(Exposition* exposition) const;
  void AddExpertMeasures(Exposition* exposition) const;
  void AddShadowCounters(Exposition* exposition) const;
  // Gauges of all pairs of routers; `by_layer`: those of the slower page.
  void AddShadowMeasures(bool by_layer, Exposition* exposition) const;
  void AddState(Exposition* exposition) const;
  void AddTenants(Exposition* exposition) const;
  bool IsShown(const std::string& experiment) const;
  void AddExperiments(Exposition* exposition) const;
  void AddExperimentFigures(Exposition* exposition) const;

  const Options options_;
  mutable std::mutex mutex_;  // guards everything below
  std::map<std::string, std::unique_ptr<RouterSeries>> routers_;
  LabelledCounts unrouted_;  // {code, api}: requests of router="none"
  std::vector<std::unique_ptr<prometheus::Histogram>> step_durations_, step_rows_;  // by StepPhase
  std::unique_ptr<prometheus::Histogram> step_routers_;
  std::int64_t expert_passes_ = 0;
  using RouterPair = std::pair<std::string, std::string>;  // {serving router, shadow}
  std::map<RouterPair, std::unique_ptr<ShadowSeries>> shadows_;
  std::int64_t shadow_steps_ = 0, skipped_shadow_steps_ = 0;
  absl::Duration shadow_time_;
  LoadEvent load_;
  bool reload_successful_ = true;  // the first load was, or there were no server
  absl::flat_hash_set<std::string> tenants_;
  LabelledCounts tenant_requests_, tenant_tokens_,
      tenant_throttled_;  // {tenant, code | kind | reason}
  std::map<std::array<std::string, 4>, std::int64_t>
      assignments_;              // {experiment, revision, arm, reason}
  LabelledCounts paired_texts_;  // {experiment, result}
  std::vector<ExperimentSeries> experiments_;
};

}  // namespace penstock
