// Everything that is counted per router.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "prometheus/histogram.h"
#include "server/telemetry/events.h"
#include "server/telemetry/expert_ledger.h"
#include "server/telemetry/exposition.h"

namespace penstock {

// Upper bounds in seconds of the latency histograms.
const prometheus::Histogram::BucketBoundaries&
ShortLatencyBuckets();  // 0.5 ms to 2.5 s: between tokens, steps
const prometheus::Histogram::BucketBoundaries&
QueueLatencyBuckets();  // 1 ms to 60 s: to the first token
const prometheus::Histogram::BucketBoundaries&
RequestLatencyBuckets();  // 10 ms to 600 s: whole requests

// "grpc", "oip", "openai"
std::string ApiLabel(Api api);
// `code` if it names a gRPC status code, else "UNKNOWN": the set of label values is closed.
std::string CodeLabel(const std::string& code);

// Not thread-safe.
struct RouterSeries {
  RouterSeries(const std::vector<int>& layers, int num_experts, int top_k);

  void Count(const RequestEvent& request);
  // The gaps of a step are collected, then counted at once: there may be hundreds of them.
  void AddGap(absl::Duration gap);
  void CountGaps();
  void AddTo(const std::string& router, Exposition* exposition) const;

  std::map<std::pair<std::string, std::string>, std::int64_t> requests;  // {code, api}
  prometheus::Histogram request_duration, time_to_first_token, inter_token_latency, queue_duration,
      prefill_duration;
  std::int64_t prompt_tokens = 0, cached_prompt_tokens = 0, generated_tokens = 0;
  std::int64_t rows = 0;
  absl::Duration router_time;
  ExpertLedger experts;
  std::vector<double> gap_buckets;  // gaps added but not yet counted, per bucket, the open one last
  double gap_sum = 0;               // seconds
  bool has_gaps = false;
};

}  // namespace penstock
