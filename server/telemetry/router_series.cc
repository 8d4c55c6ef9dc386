#include "server/telemetry/router_series.h"

#include <algorithm>
#include <iterator>

namespace penstock {

const prometheus::Histogram::BucketBoundaries& ShortLatencyBuckets() {
  static const auto* const kBuckets = new prometheus::Histogram::BucketBoundaries{
      0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.006, 0.008, 0.012, 0.016,
      0.024,  0.032, 0.048,  0.064, 0.1,   0.2,   0.5,   1,     2.5};
  return *kBuckets;
}

const prometheus::Histogram::BucketBoundaries& QueueLatencyBuckets() {
  static const auto* const kBuckets = new prometheus::Histogram::BucketBoundaries{
      0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60};
  return *kBuckets;
}

const prometheus::Histogram::BucketBoundaries& RequestLatencyBuckets() {
  static const auto* const kBuckets = new prometheus::Histogram::BucketBoundaries{
      0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600};
  return *kBuckets;
}

std::string ApiLabel(Api api) {
  switch (api) {
    case Api::kGrpc:
      return "grpc";
    case Api::kOip:
      return "oip";
    case Api::kOpenAi:
      return "openai";
  }
  return "";
}

std::string CodeLabel(const std::string& code) {
  // https://grpc.github.io/grpc/core/md_doc_statuscodes.html
  static constexpr const char* kCodes[] = {"OK",
                                           "CANCELLED",
                                           "UNKNOWN",
                                           "INVALID_ARGUMENT",
                                           "DEADLINE_EXCEEDED",
                                           "NOT_FOUND",
                                           "ALREADY_EXISTS",
                                           "PERMISSION_DENIED",
                                           "RESOURCE_EXHAUSTED",
                                           "FAILED_PRECONDITION",
                                           "ABORTED",
                                           "OUT_OF_RANGE",
                                           "UNIMPLEMENTED",
                                           "INTERNAL",
                                           "UNAVAILABLE",
                                           "DATA_LOSS",
                                           "UNAUTHENTICATED"};
  const bool known = std::find(std::begin(kCodes), std::end(kCodes), code) != std::end(kCodes);
  return known ? code : "UNKNOWN";
}

RouterSeries::RouterSeries(const std::vector<int>& layers, int num_experts, int top_k)
    : request_duration(RequestLatencyBuckets()),
      time_to_first_token(QueueLatencyBuckets()),
      inter_token_latency(ShortLatencyBuckets()),
      queue_duration(QueueLatencyBuckets()),
      prefill_duration(QueueLatencyBuckets()),
      experts(layers, num_experts, top_k),
      gap_buckets(ShortLatencyBuckets().size() + 1) {}

void RouterSeries::AddGap(absl::Duration gap) {
  const auto& bounds = ShortLatencyBuckets();
  const double seconds = absl::ToDoubleSeconds(gap);
  ++gap_buckets[std::lower_bound(bounds.begin(), bounds.end(), seconds) - bounds.begin()];
  gap_sum += seconds;
  has_gaps = true;
}

void RouterSeries::CountGaps() {
  if (!has_gaps) return;
  inter_token_latency.ObserveMultiple(gap_buckets, gap_sum);
  std::fill(gap_buckets.begin(), gap_buckets.end(), 0);
  gap_sum = 0;
  has_gaps = false;
}

void RouterSeries::Count(const RequestEvent& request) {
  ++requests[{CodeLabel(request.code), ApiLabel(request.api)}];
  request_duration.Observe(absl::ToDoubleSeconds(request.total));
  if (!request.started) return;
  prompt_tokens += request.prompt_tokens;
  cached_prompt_tokens += request.cached_prompt_tokens;
  generated_tokens += request.generated_tokens;
  queue_duration.Observe(absl::ToDoubleSeconds(request.queue));
  // A request may start and end without a token: cancelled, or asked for the prompt's
  // log-probabilities alone.
  if (request.time_to_first_token <= absl::ZeroDuration()) return;
  prefill_duration.Observe(absl::ToDoubleSeconds(request.prefill));
  time_to_first_token.Observe(absl::ToDoubleSeconds(request.time_to_first_token));
}

void RouterSeries::AddTo(const std::string& router, Exposition* exposition) const {
  const MetricLabels labels = {{"router", router}};
  for (const auto& [key, count] : requests) {
    exposition->Add(metrics::kRequests,
                    {{"router", router}, {"code", key.first}, {"api", key.second}},
                    static_cast<double>(count));
  }
  exposition->Add(metrics::kRequestDuration, labels, request_duration);
  exposition->Add(metrics::kTimeToFirstToken, labels, time_to_first_token);
  exposition->Add(metrics::kInterTokenLatency, labels, inter_token_latency);
  exposition->Add(metrics::kQueueDuration, labels, queue_duration);
  exposition->Add(metrics::kPrefillDuration, labels, prefill_duration);
  const std::int64_t missed = prompt_tokens - cached_prompt_tokens;
  exposition->Add(metrics::kPromptTokens, labels, static_cast<double>(prompt_tokens));
  exposition->Add(metrics::kCachedPromptTokens, labels, static_cast<double>(cached_prompt_tokens));
  exposition->Add(metrics::kGeneratedTokens, labels, static_cast<double>(generated_tokens));
  exposition->Add(metrics::kPrefixCacheTokens, {{"router", router}, {"result", "hit"}},
                  static_cast<double>(cached_prompt_tokens));
  exposition->Add(metrics::kPrefixCacheTokens, {{"router", router}, {"result", "miss"}},
                  static_cast<double>(missed));
  exposition->Add(metrics::kRouterTokens, labels, static_cast<double>(rows));
  exposition->Add(metrics::kRouterSeconds, labels, absl::ToDoubleSeconds(router_time));
}

}  // namespace penstock
