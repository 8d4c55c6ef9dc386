// Every series of the server: the one place that knows their names. Definitions are in README.md.
#pragma once

#include "prometheus/metric_type.h"

namespace penstock {

struct Metric {
  const char* name;
  prometheus::MetricType type;
  const char* help;
};

namespace metrics {

inline constexpr auto kCounter = prometheus::MetricType::Counter;
inline constexpr auto kGauge = prometheus::MetricType::Gauge;
// Sums that a name ending in _count or _sum would make seem a histogram's; they may fall.
inline constexpr auto kUntyped = prometheus::MetricType::Untyped;
inline constexpr auto kHistogram = prometheus::MetricType::Histogram;

// Requests.
inline constexpr Metric kRequests{"penstock_requests_total", kCounter,
                                  "Requests that ended, refused ones included, by status code."};
inline constexpr Metric kRequestDuration{"penstock_request_duration_seconds", kHistogram,
                                         "Time from a request's arrival to its end."};
inline constexpr Metric kTimeToFirstToken{"penstock_time_to_first_token_seconds", kHistogram,
                                          "Time from a request's arrival to its first token."};
inline constexpr Metric kInterTokenLatency{"penstock_inter_token_latency_seconds", kHistogram,
                                           "Time between two tokens of one answer."};
inline constexpr Metric kQueueDuration{
    "penstock_queue_duration_seconds", kHistogram,
    "Time from a request's arrival to its admission into the batch."};
inline constexpr Metric kPrefillDuration{"penstock_prefill_duration_seconds", kHistogram,
                                         "Time from a request's admission to its first token."};
inline constexpr Metric kPromptTokens{"penstock_prompt_tokens_total", kCounter,
                                      "Prompt tokens of ended requests, cached ones included."};
inline constexpr Metric kCachedPromptTokens{
    "penstock_cached_prompt_tokens_total", kCounter,
    "Prompt tokens of ended requests that the prefix cache held."};
inline constexpr Metric kGeneratedTokens{"penstock_generated_tokens_total", kCounter,
                                         "Tokens generated for ended requests."};
inline constexpr Metric kPrefixCacheTokens{
    "penstock_prefix_cache_tokens_total", kCounter,
    "Prompt tokens looked up in the prefix cache, by result."};

// Steps and routers.
inline constexpr Metric kStepDuration{"penstock_step_duration_seconds", kHistogram,
                                      "Duration of a forward pass."};
inline constexpr Metric kStepRows{"penstock_step_rows", kHistogram,
                                  "Token rows of a forward pass."};
inline constexpr Metric kStepRouters{"penstock_step_routers", kHistogram,
                                     "Distinct routers with rows in one forward pass."};
inline constexpr Metric kExpertPasses{"penstock_expert_passes_total", kCounter,
                                      "Grouped expert products: one per sparse layer and forward "
                                      "pass, whatever the number of routers."};
inline constexpr Metric kRouterSeconds{"penstock_router_gpu_seconds_total", kCounter,
                                       "Device time spent routing; on a CPU, thread time."};
inline constexpr Metric kRouterTokens{"penstock_router_tokens_total", kCounter,
                                      "Token rows routed, each counted once, not per layer."};
inline constexpr Metric kEntropy{
    "penstock_router_entropy_ratio", kGauge,
    "Mean entropy of the routing probabilities over ln(experts), last 60 s."};
inline constexpr Metric kLoadEntropy{"penstock_expert_load_entropy_ratio", kGauge,
                                     "Entropy of the expert loads over ln(experts), last 60 s."};
inline constexpr Metric kImbalance{"penstock_expert_imbalance_ratio", kGauge,
                                   "Load of the busiest expert over the mean load, last 60 s."};
inline constexpr Metric kLoadCv{"penstock_expert_load_cv", kGauge,
                                "Coefficient of variation of the expert loads, last 60 s."};
inline constexpr Metric kUtilization{
    "penstock_expert_utilization_ratio", kGauge,
    "Share of experts with at least a tenth of the mean load, last 60 s."};
inline constexpr Metric kIdle{"penstock_experts_idle", kGauge,
                              "Experts without any token, last 60 s."};
inline constexpr Metric kTopkMass{"penstock_router_topk_mass_ratio", kGauge,
                                  "Mean probability of the chosen experts together, last 60 s."};

// Shadow routing: what the other loaded routers say of a sample of steps.
inline constexpr Metric kShadowOverlap{
    "penstock_shadow_overlap_ratio", kGauge,
    "Share of a router's chosen experts that a shadow router chose too, mean over layers, last "
    "60 s."};
inline constexpr Metric kShadowKl{
    "penstock_shadow_kl_nats", kGauge,
    "KL(router || shadow) of the routing probabilities, mean over layers, last 60 s."};
inline constexpr Metric kShadowRows{"penstock_shadow_rows_total", kCounter,
                                    "Token rows of a router that a shadow router was asked about, "
                                    "each counted once, not per layer."};
inline constexpr Metric kShadowFailedRows{
    "penstock_shadow_failed_rows_total", kCounter,
    "Rows, over all layers, for which a shadow router's logits were not finite."};
inline constexpr Metric kShadowSteps{
    "penstock_shadow_steps_total", kCounter,
    "Forward passes in the sample of shadow routing: counted, or skipped for their cost."};
inline constexpr Metric kShadowSeconds{"penstock_shadow_seconds_total", kCounter,
                                       "Step time that shadow routing took."};

// State.
inline constexpr Metric kRunning{"penstock_requests_running", kGauge, "Sequences in the batch."};
inline constexpr Metric kWaiting{"penstock_requests_waiting", kGauge, "Sequences in the queue."};
inline constexpr Metric kBlocks{"penstock_kv_blocks", kGauge, "Blocks of the KV cache, by state."};
inline constexpr Metric kPreemptions{"penstock_preemptions_total", kCounter,
                                     "Sequences that lost their blocks and were computed again."};

// Tenants.
inline constexpr Metric kTenantRequests{"penstock_tenant_requests_total", kCounter,
                                        "Requests that ended, by tenant and status code."};
inline constexpr Metric kTenantTokens{"penstock_tenant_tokens_total", kCounter,
                                      "Tokens of ended requests, by tenant and kind."};
inline constexpr Metric kTenantThrottled{"penstock_tenant_throttled_total", kCounter,
                                         "Requests turned away, by tenant and exhausted limit."};

// Experiments.
inline constexpr Metric kAssignments{"penstock_experiment_assignments_total", kCounter,
                                     "Requests that ended after an experiment chose their router."};
inline constexpr Metric kPairedTexts{
    "penstock_paired_texts_total", kCounter,
    "Finished requests' texts chosen to be scored under the other arms, by what became of them."};
inline constexpr Metric kPairedRows{
    "penstock_paired_rows_total", kCounter,
    "Token rows computed to score texts under other arms, counted nowhere else."};
inline constexpr Metric kArmHalted{"penstock_experiment_arm_halted", kGauge,
                                   "1 while the arm's units get control's router, else 0."};
inline constexpr Metric kSampleRatio{
    "penstock_experiment_sample_ratio_p_value", kGauge,
    "That the arms get the units that their shares promise; at most 0.001 is an alarm."};
inline constexpr Metric kFirstExposures{
    "penstock_experiment_first_exposures", kGauge,
    "Units of the subsample that an arm got for the first time."};
inline constexpr Metric kMetricCount{"penstock_experiment_metric_count", kUntyped,
                                     "Units whose window has closed, by metric."};
inline constexpr Metric kMetricSum{"penstock_experiment_metric_sum", kUntyped,
                                   "Sum over those units."};
inline constexpr Metric kMetricSumSquares{"penstock_experiment_metric_sum_squares", kUntyped,
                                          "Sum of squares over those units."};
inline constexpr Metric kMetricCrossSum{
    "penstock_experiment_metric_cross_sum", kUntyped,
    "Sum over those units of the metric's numerator times its denominator."};
inline constexpr Metric kTraffic{
    "penstock_experiment_traffic", kUntyped,
    "Sum over all requests of the arm, whether or not their unit's window has closed."};
inline constexpr Metric kUniqueUnits{"penstock_experiment_unique_units", kGauge,
                                     "Different units of the arm, within about 1 %."};
inline constexpr Metric kUnitSample{
    "penstock_experiment_unit_sample", kUntyped,
    "The smallest hashes of units: one on two replicas is a unit that both have seen."};
inline constexpr Metric kExperimentDuration{
    "penstock_experiment_duration_seconds", kHistogram,
    "Durations of the arm's requests, and between their tokens, by metric of the report."};
inline constexpr Metric kAnalysisStart{"penstock_experiment_analysis_start_time_seconds", kGauge,
                                       "Since when this replica measures, since the epoch."};
inline constexpr Metric kAnalysisPeriod{
    "penstock_experiment_analysis_period", kGauge,
    "Period of analysis: another one begins when a halt is taken back."};
inline constexpr Metric kMeasuringWindow{
    "penstock_experiment_window_seconds", kGauge,
    "By what rule units are measured: sums of replicas where it differs do not add up."};
inline constexpr Metric kUnitsMeasured{"penstock_experiment_units_measured_ratio", kGauge,
                                       "Share of the units whose sums are kept."};

// Server and process.
inline constexpr Metric kReload{"penstock_config_last_reload_successful", kGauge,
                                "1 if the last reload of the configuration was applied, else 0."};
inline constexpr Metric kGpuMemory{"penstock_gpu_memory_bytes", kGauge,
                                   "Memory of the GPU, by what it holds; the kinds sum to all."};
inline constexpr Metric kBuild{"penstock_build_info", kGauge,
                               "1, with the build's properties as labels."};
inline constexpr Metric kCpuSeconds{"process_cpu_seconds_total", kCounter,
                                    "User and system CPU time of the process."};
inline constexpr Metric kOpenFds{"process_open_fds", kGauge, "Open file descriptors."};
inline constexpr Metric kMaxFds{"process_max_fds", kGauge,
                                "Most file descriptors that may be open."};
inline constexpr Metric kResidentMemory{"process_resident_memory_bytes", kGauge,
                                        "Resident memory."};
inline constexpr Metric kVirtualMemory{"process_virtual_memory_bytes", kGauge, "Virtual memory."};
inline constexpr Metric kStartTime{"process_start_time_seconds", kGauge,
                                   "Start of the process since the epoch."};

// Tier 2.
inline constexpr Metric kExpertTokens{
    "penstock_expert_tokens_total", kCounter,
    "Token rows routed to an expert; over a layer's experts they sum to k times the rows."};

inline constexpr Metric kShadowLayerOverlap{
    "penstock_shadow_layer_overlap_ratio", kGauge,
    "Share of a router's chosen experts that a shadow router chose too, last 60 s."};
inline constexpr Metric kShadowLayerKl{
    "penstock_shadow_layer_kl_nats", kGauge,
    "KL(router || shadow) of the routing probabilities, last 60 s."};
inline constexpr Metric kShadowLayerEntropy{
    "penstock_shadow_layer_entropy_ratio", kGauge,
    "Mean entropy of the shadow router's probabilities over ln(experts), last 60 s."};
inline constexpr Metric kShadowLayerLoadEntropy{
    "penstock_shadow_layer_load_entropy_ratio", kGauge,
    "Entropy of the loads that the shadow router would make over ln(experts), last 60 s."};
inline constexpr Metric kShadowLayerImbalance{
    "penstock_shadow_layer_imbalance_ratio", kGauge,
    "Load of the expert busiest under the shadow router over the mean load, last 60 s."};

}  // namespace metrics
}  // namespace penstock
