#include "clients/cpp/bench/report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "clients/cpp/error.h"

namespace penstock::client {
namespace {

// The samples of a group, before they are summed up.
struct Collected {
  LoadSummary summary;
  std::vector<absl::Duration> first_token, gaps, per_token, end_to_end;
};

void Collect(const RequestSample& sample, Collected& group) {
  LoadSummary& summary = group.summary;
  ++summary.requests;
  summary.prompt_tokens += sample.prompt_tokens;
  summary.cached_prompt_tokens += sample.cached_prompt_tokens;
  summary.generated_tokens += sample.tokens;
  if (!sample.status.ok()) {
    ++summary.failed;
    const std::string reason = GetErrorDetail(sample.status).reason;
    std::string name = absl::StatusCodeToString(sample.status.code());
    if (!reason.empty()) absl::StrAppend(&name, " (", reason, ")");
    ++summary.errors[name];
    return;
  }
  group.end_to_end.push_back(sample.ended - sample.scheduled);
  group.gaps.insert(group.gaps.end(), sample.gaps.begin(), sample.gaps.end());
  if (!sample.first_token) return;
  group.first_token.push_back(*sample.first_token - sample.scheduled);
  if (sample.tokens > 1) {
    group.per_token.push_back((*sample.last_token - *sample.first_token) / (sample.tokens - 1));
  }
}

LoadSummary Finish(Collected group, absl::Duration elapsed) {
  LoadSummary& summary = group.summary;
  summary.time_to_first_token = Summarize(std::move(group.first_token));
  summary.inter_token = Summarize(std::move(group.gaps));
  summary.time_per_output_token = Summarize(std::move(group.per_token));
  summary.end_to_end = Summarize(std::move(group.end_to_end));
  if (const double seconds = absl::ToDoubleSeconds(elapsed); seconds > 0) {
    summary.requests_per_second = static_cast<double>(summary.requests - summary.failed) / seconds;
    summary.generated_tokens_per_second = static_cast<double>(summary.generated_tokens) / seconds;
  }
  return std::move(summary);
}

}  // namespace

Distribution Summarize(std::vector<absl::Duration> samples) {
  Distribution distribution;
  distribution.count = static_cast<std::int64_t>(samples.size());
  if (samples.empty()) return distribution;
  std::sort(samples.begin(), samples.end());
  // In integers: 0.9 · 10 is above 9 in floating point.
  const auto percentile = [&](std::size_t percent) {
    const std::size_t rank = (samples.size() * percent + 99) / 100;
    return samples[std::max<std::size_t>(rank, 1) - 1];
  };
  absl::Duration sum;
  for (const absl::Duration sample : samples) sum += sample;
  distribution.mean = sum / distribution.count;
  distribution.p50 = percentile(50);
  distribution.p90 = percentile(90);
  distribution.p99 = percentile(99);
  distribution.max = samples.back();
  return distribution;
}

LoadReport MakeReport(const LoadResult& result) {
  LoadReport report;
  report.elapsed = result.elapsed;
  report.peak_in_flight = result.peak_in_flight;
  report.interrupted = result.interrupted;
  Collected all;
  std::map<std::string, Collected> routers;
  for (const RequestSample& sample : result.samples) {
    report.first_error.Update(sample.status);
    Collect(sample, all);
    // Refused before a router was assigned, with none asked for.
    Collect(sample, routers[sample.router.empty() ? "(none)" : sample.router]);
    report.worst_send_lag = std::max(report.worst_send_lag, sample.sent - sample.scheduled);
  }
  report.all = Finish(std::move(all), result.elapsed);
  for (auto& [name, group] : routers)
    report.routers[name] = Finish(std::move(group), result.elapsed);
  return report;
}

}  // namespace penstock::client
