// What a run came to: exact percentiles, throughput and errors, overall and by router.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "clients/cpp/bench/load_generator.h"

namespace penstock::client {

// Of all samples, none dropped or binned. Percentiles are nearest-rank: the smallest sample that at
// least q % of the samples don't exceed (Hyndman and Fan 1996, definition 1), so each is a latency
// that somebody had.
struct Distribution {
  std::int64_t count = 0;
  absl::Duration mean, p50, p90, p99, max;  // zero where count is
};

Distribution Summarize(std::vector<absl::Duration> samples);

// Of the requests of one router, or of all.
struct LoadSummary {
  std::int64_t requests = 0, failed = 0;
  std::int64_t prompt_tokens = 0, cached_prompt_tokens = 0, generated_tokens = 0;
  double requests_per_second = 0;  // that ended well
  double generated_tokens_per_second = 0;
  // Of requests that ended well, from the scheduled time (load_generator.h).
  Distribution time_to_first_token;
  Distribution inter_token;            // between messages with tokens
  Distribution time_per_output_token;  // per request: (last − first token) / (tokens − 1)
  Distribution end_to_end;
  std::map<std::string, std::int64_t> errors;  // "RESOURCE_EXHAUSTED (QUEUE_FULL)" → requests
};

struct LoadReport {
  LoadSummary all;
  std::map<std::string, LoadSummary> routers;
  absl::Duration elapsed;
  int peak_in_flight = 0;
  absl::Duration
      worst_send_lag;  // actual after scheduled sending; large: the generator itself was too slow
  bool interrupted = false;
  absl::Status first_error;  // of a request that failed; OK: none did
};

LoadReport MakeReport(const LoadResult& result);

// For people: totals, a table of latencies by router, errors if any.
std::string ReportTable(const LoadReport& report);

// What was run, for the head of the JSON.
struct RunDescription {
  std::string server, model, backend, dtype, server_version;
  LoadOptions load;
  std::string routers, prompt_tokens, output_tokens;
  int connections = 1;
  std::int64_t warmup = 0;
};

// One object, indented; seconds for all times.
std::string ReportJson(const RunDescription& run, const LoadReport& report);

}  // namespace penstock::client
