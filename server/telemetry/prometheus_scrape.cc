// The part of PrometheusTelemetry that a scrape runs. The mutex is held while one router's numbers
// are copied, and not while text is made, so that a step waits for microseconds at most.
#include "server/telemetry/process_metrics.h"
#include "server/telemetry/prometheus_telemetry.h"
#include "server/telemetry/router_series.h"
#include "server/telemetry/shadow_series.h"

namespace penstock {
namespace {

constexpr char kNoRouter[] = "none";
constexpr const char* kPhases[] = {"prefill", "decode", "mixed"};  // by StepPhase

}  // namespace

std::string PrometheusTelemetry::ServeMetrics() const {
  Exposition exposition;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    AddRouters(&exposition);
    AddSteps(&exposition);
    AddShadowCounters(&exposition);
    AddState(&exposition);
    AddTenants(&exposition);
    AddExperiments(&exposition);
  }
  AddExpertMeasures(&exposition);
  AddShadowMeasures(/*by_layer=*/false, &exposition);
  AddExperimentFigures(&exposition);
  if (options_.gpu_memory) {
    for (const auto& [kind, bytes] : options_.gpu_memory())
      exposition.Add(metrics::kGpuMemory, {{"kind", kind}}, static_cast<double>(bytes));
  }
  exposition.Add(metrics::kBuild, {options_.build.begin(), options_.build.end()}, 1);
  AddProcessMetrics(&exposition);
  return exposition.Text();
}

std::string PrometheusTelemetry::ServeExpertMetrics() const {
  Exposition exposition;
  for (const RouterExpertStats& router : Snapshot()) {
    for (const LayerExpertStats& layer : router.layers) {
      MetricLabels labels = {
          {"router", router.router}, {"layer", std::to_string(layer.layer)}, {"expert", ""}};
      for (std::size_t expert = 0; expert < layer.slots.size(); ++expert) {
        labels.back().second = std::to_string(expert);
        exposition.Add(metrics::kExpertTokens, labels, static_cast<double>(layer.slots[expert]));
      }
    }
  }
  AddShadowMeasures(/*by_layer=*/true, &exposition);
  return exposition.Text();
}

std::vector<RouterExpertStats> PrometheusTelemetry::Snapshot() const {
  const std::int64_t second = NowSecond();
  std::vector<RouterExpertStats> snapshot;
  for (const std::string& name : RouterNames()) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = routers_.find(name);
    if (found == routers_.end()) continue;  // unloaded since
    const RouterSeries& series = *found->second;
    snapshot.push_back({.router = name,
                        .rows = series.rows,
                        .router_time = series.router_time,
                        .layers = series.experts.StatsAt(second)});
  }
  return snapshot;
}

std::vector<std::string> PrometheusTelemetry::RouterNames() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [name, series] : routers_) names.push_back(name);
  return names;
}

void PrometheusTelemetry::AddSteps(Exposition* exposition) const {
  for (std::size_t phase = 0; phase < std::size(kPhases); ++phase) {
    exposition->Add(metrics::kStepDuration, {{"phase", kPhases[phase]}}, *step_durations_[phase]);
    exposition->Add(metrics::kStepRows, {{"phase", kPhases[phase]}}, *step_rows_[phase]);
  }
  exposition->Add(metrics::kStepRouters, {}, *step_routers_);
  exposition->Add(metrics::kExpertPasses, {}, static_cast<double>(expert_passes_));
}

void PrometheusTelemetry::AddRouters(Exposition* exposition) const {
  for (const auto& [name, series] : routers_) series->AddTo(name, exposition);
  for (const auto& [key, count] : unrouted_) {
    exposition->Add(metrics::kRequests,
                    {{"router", kNoRouter}, {"code", key.first}, {"api", key.second}},
                    static_cast<double>(count));
  }
}

void PrometheusTelemetry::AddExpertMeasures(Exposition* exposition) const {
  for (const RouterExpertStats& router : Snapshot()) {
    for (const LayerExpertStats& layer : router.layers) {
      if (!layer.window) continue;
      const MetricLabels labels = {{"router", router.router},
                                   {"layer", std::to_string(layer.layer)}};
      exposition->Add(metrics::kEntropy, labels, layer.window->entropy_ratio);
      exposition->Add(metrics::kLoadEntropy, labels, layer.window->load_entropy_ratio);
      exposition->Add(metrics::kImbalance, labels, layer.window->imbalance_ratio);
      exposition->Add(metrics::kLoadCv, labels, layer.window->load_cv);
      exposition->Add(metrics::kUtilization, labels, layer.window->utilization_ratio);
      exposition->Add(metrics::kIdle, labels, static_cast<double>(layer.window->idle));
      exposition->Add(metrics::kTopkMass, labels, layer.window->topk_mass_ratio);
    }
  }
}

void PrometheusTelemetry::AddShadowCounters(Exposition* exposition) const {
  exposition->Add(metrics::kShadowSteps, {{"result", "counted"}},
                  static_cast<double>(shadow_steps_));
  exposition->Add(metrics::kShadowSteps, {{"result", "skipped"}},
                  static_cast<double>(skipped_shadow_steps_));
  exposition->Add(metrics::kShadowSeconds, {}, absl::ToDoubleSeconds(shadow_time_));
  for (const auto& [pair, series] : shadows_) {
    const MetricLabels labels = {{"router", pair.first}, {"shadow", pair.second}};
    exposition->Add(metrics::kShadowRows, labels, static_cast<double>(series->rows()));
    exposition->Add(metrics::kShadowFailedRows, labels, static_cast<double>(series->failed_rows()));
  }
}

void PrometheusTelemetry::AddShadowMeasures(bool by_layer, Exposition* exposition) const {
  const std::int64_t second = NowSecond();
  std::vector<RouterPair> pairs;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [pair, series] : shadows_) pairs.push_back(pair);
  }
  for (const RouterPair& pair : pairs) {
    std::vector<ShadowLayerMeasures> layers;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      const auto found = shadows_.find(pair);
      if (found == shadows_.end()) continue;  // unloaded since
      layers = found->second->MeasuresAt(second);
    }
    (by_layer ? AddShadowLayers : AddShadowMeans)(layers, pair.first, pair.second, exposition);
  }
}

void PrometheusTelemetry::AddState(Exposition* exposition) const {
  exposition->Add(metrics::kRunning, {}, static_cast<double>(load_.running));
  exposition->Add(metrics::kWaiting, {}, static_cast<double>(load_.waiting));
  exposition->Add(metrics::kBlocks, {{"state", "free"}}, static_cast<double>(load_.blocks_free));
  exposition->Add(metrics::kBlocks, {{"state", "active"}},
                  static_cast<double>(load_.blocks_active));
  exposition->Add(metrics::kBlocks, {{"state", "cached"}},
                  static_cast<double>(load_.blocks_cached));
  exposition->Add(metrics::kPreemptions, {}, static_cast<double>(load_.preemptions));
  exposition->Add(metrics::kReload, {}, reload_successful_ ? 1 : 0);
}

void PrometheusTelemetry::AddTenants(Exposition* exposition) const {
  const auto add = [&](const Metric& metric, const char* label, const LabelledCounts& counts) {
    for (const auto& [key, count] : counts) {
      exposition->Add(metric, {{"tenant", key.first}, {label, key.second}},
                      static_cast<double>(count));
    }
  };
  add(metrics::kTenantRequests, "code", tenant_requests_);
  add(metrics::kTenantTokens, "kind", tenant_tokens_);
  add(metrics::kTenantThrottled, "reason", tenant_throttled_);
}

void PrometheusTelemetry::AddExperiments(Exposition* exposition) const {
  for (const auto& [labels, count] : assignments_) {
    exposition->Add(metrics::kAssignments,
                    {{"experiment", labels[0]},
                     {"revision", labels[1]},
                     {"arm", labels[2]},
                     {"reason", labels[3]}},
                    static_cast<double>(count));
  }
  for (const auto& [labels, count] : paired_texts_) {
    exposition->Add(metrics::kPairedTexts,
                    {{"experiment", labels.first}, {"result", labels.second}},
                    static_cast<double>(count));
  }
  exposition->Add(metrics::kPairedRows, {}, static_cast<double>(load_.background_rows));
  for (const ExperimentSeries& series : experiments_) {
    for (const auto& [arm, halted] : series.halted) {
      exposition->Add(
          metrics::kArmHalted,
          {{"experiment", series.experiment}, {"revision", series.revision}, {"arm", arm}},
          halted ? 1 : 0);
    }
  }
}

namespace {

void AddExperimentTraffic(const ExperimentFigures& figures, const MetricLabels& whole,
                          Exposition* exposition) {
  const auto with = [&](std::string_view name, const std::string& value,
                        const MetricLabels& labels) {
    MetricLabels all = labels;
    all.emplace_back(name, value);
    return all;
  };
  for (const ExperimentFigures::Window& window : figures.windows) {
    exposition->Add(metrics::kMeasuringWindow, with("window", window.name, whole), window.seconds);
  }
  for (const ExperimentFigures::Traffic& traffic : figures.traffic) {
    exposition->Add(metrics::kTraffic,
                    with("quantity", traffic.quantity, with("arm", traffic.arm, whole)),
                    traffic.sum);
  }
  for (const ExperimentFigures::UniqueUnits& unique : figures.unique_units) {
    exposition->Add(metrics::kUniqueUnits, with("arm", unique.arm, whole), unique.units);
  }
  for (const ExperimentFigures::Durations& durations : figures.durations) {
    exposition->Add(metrics::kExperimentDuration,
                    with("metric", durations.metric, with("arm", durations.arm, whole)),
                    durations.at_most, durations.count, durations.sum);
  }
  for (std::size_t rank = 0; rank < figures.unit_sample.size(); ++rank) {
    exposition->Add(metrics::kUnitSample, with("rank", std::to_string(rank), whole),
                    static_cast<double>(figures.unit_sample[rank]));
  }
}

}  // namespace

void PrometheusTelemetry::AddExperimentFigures(Exposition* exposition) const {
  if (!options_.experiments) return;
  for (const ExperimentFigures& figures : options_.experiments()) {
    const MetricLabels whole = {{"experiment", figures.experiment}, {"revision", figures.revision}};
    exposition->Add(metrics::kSampleRatio, whole, figures.sample_ratio_p_value);
    exposition->Add(metrics::kAnalysisStart, whole, absl::ToUnixMillis(figures.since) / 1000.0);
    exposition->Add(metrics::kAnalysisPeriod, whole, static_cast<double>(figures.period));
    exposition->Add(metrics::kUnitsMeasured, whole, figures.measured);
    AddExperimentTraffic(figures, whole, exposition);
    for (const ExperimentFigures::Exposures& exposures : figures.first_exposures) {
      MetricLabels labels = whole;
      labels.emplace_back("arm", exposures.arm);
      exposition->Add(metrics::kFirstExposures, labels, static_cast<double>(exposures.units));
    }
    for (const ExperimentFigures::Sums& sums : figures.sums) {
      MetricLabels labels = whole;
      labels.emplace_back("arm", sums.arm);
      labels.emplace_back("metric", sums.metric);
      exposition->Add(metrics::kMetricCount, labels, static_cast<double>(sums.count));
      exposition->Add(metrics::kMetricSum, labels, sums.sum);
      exposition->Add(metrics::kMetricSumSquares, labels, sums.sum_squares);
      if (sums.cross_sum) exposition->Add(metrics::kMetricCrossSum, labels, *sums.cross_sum);
    }
  }
}

}  // namespace penstock
