#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cpp/bench/report.h"
#include "clients/cpp/terminal/table.h"

namespace penstock::client {
namespace {

using Json = nlohmann::ordered_json;

std::string Milliseconds(absl::Duration duration) {
  const double value = absl::ToDoubleMilliseconds(duration);
  return Fixed(value, value < 100 ? 2 : 1);
}

void AddLatencyRow(Table& table, const std::string& router, const std::string& what,
                   const Distribution& distribution) {
  if (distribution.count == 0) {
    table.AddRow({router, what, "0", "–", "–", "–", "–", "–"});
    return;
  }
  table.AddRow({router, what, Grouped(distribution.count), Milliseconds(distribution.mean),
                Milliseconds(distribution.p50), Milliseconds(distribution.p90),
                Milliseconds(distribution.p99), Milliseconds(distribution.max)});
}

void AddLatencyRows(Table& table, const std::string& router, const LoadSummary& summary) {
  AddLatencyRow(table, router, "first token", summary.time_to_first_token);
  AddLatencyRow(table, "", "inter-token", summary.inter_token);
  AddLatencyRow(table, "", "per output token", summary.time_per_output_token);
  AddLatencyRow(table, "", "end to end", summary.end_to_end);
}

std::vector<std::string> ThroughputRow(const std::string& router, const LoadSummary& summary) {
  return {router,
          Grouped(summary.requests),
          Grouped(summary.failed),
          Grouped(summary.prompt_tokens),
          Grouped(summary.generated_tokens),
          Fixed(summary.requests_per_second, 2),
          Fixed(summary.generated_tokens_per_second, 1)};
}

Json ToJson(const Distribution& distribution) {
  Json json;
  json["count"] = distribution.count;
  if (distribution.count == 0) return json;
  json["mean"] = absl::ToDoubleSeconds(distribution.mean);
  json["p50"] = absl::ToDoubleSeconds(distribution.p50);
  json["p90"] = absl::ToDoubleSeconds(distribution.p90);
  json["p99"] = absl::ToDoubleSeconds(distribution.p99);
  json["max"] = absl::ToDoubleSeconds(distribution.max);
  return json;
}

Json ToJson(const LoadSummary& summary) {
  Json json;
  json["requests"] = summary.requests;
  json["failed"] = summary.failed;
  json["errors"] = Json::object();
  for (const auto& [name, count] : summary.errors) json["errors"][name] = count;
  json["prompt_tokens"] = summary.prompt_tokens;
  json["cached_prompt_tokens"] = summary.cached_prompt_tokens;
  json["generated_tokens"] = summary.generated_tokens;
  json["requests_per_second"] = summary.requests_per_second;
  json["generated_tokens_per_second"] = summary.generated_tokens_per_second;
  json["time_to_first_token_seconds"] = ToJson(summary.time_to_first_token);
  json["inter_token_seconds"] = ToJson(summary.inter_token);
  json["time_per_output_token_seconds"] = ToJson(summary.time_per_output_token);
  json["end_to_end_seconds"] = ToJson(summary.end_to_end);
  return json;
}

Json ToJson(const RunDescription& run) {
  Json json;
  json["server"] = run.server;
  json["server_version"] = run.server_version;
  json["model"] = run.model;
  json["backend"] = run.backend;
  json["dtype"] = run.dtype;
  json["loop"] = run.load.rate_per_second ? "open" : "closed";
  if (run.load.concurrency) json["concurrency"] = *run.load.concurrency;
  if (run.load.rate_per_second) json["rate_per_second"] = *run.load.rate_per_second;
  if (run.load.requests) json["requests"] = *run.load.requests;
  if (run.load.duration) json["duration_seconds"] = absl::ToDoubleSeconds(*run.load.duration);
  json["warmup_requests"] = run.warmup;
  json["routers"] = run.routers;
  json["prompt_tokens"] = run.prompt_tokens;
  json["output_tokens"] = run.output_tokens;
  json["connections"] = run.connections;
  json["seed"] = run.load.seed;
  return json;
}

}  // namespace

std::string ReportTable(const LoadReport& report) {
  std::string text = absl::StrFormat(
      "%.2f s, at most %d requests in flight, sent at most %.2f ms late%s\n\n",
      absl::ToDoubleSeconds(report.elapsed), report.peak_in_flight,
      absl::ToDoubleMilliseconds(report.worst_send_lag), report.interrupted ? "; interrupted" : "");
  Table throughput({{"router", Align::kLeft},
                    {"requests"},
                    {"failed"},
                    {"prompt tokens"},
                    {"generated"},
                    {"req/s"},
                    {"tok/s"}});
  Table latency({{"router", Align::kLeft},
                 {"milliseconds", Align::kLeft},
                 {"samples"},
                 {"mean"},
                 {"p50"},
                 {"p90"},
                 {"p99"},
                 {"max"}});
  for (const auto& [name, summary] : report.routers) {
    throughput.AddRow(ThroughputRow(name, summary));
    AddLatencyRows(latency, name, summary);
  }
  if (report.routers.size() != 1) {
    throughput.AddRow(ThroughputRow("all", report.all));
    AddLatencyRows(latency, "all", report.all);
  }
  absl::StrAppend(&text, throughput.ToString(), "\n", latency.ToString());
  if (report.all.errors.empty()) return text;
  Table errors({{"error", Align::kLeft}, {"router", Align::kLeft}, {"requests"}});
  for (const auto& [name, summary] : report.routers) {
    for (const auto& [error, count] : summary.errors) errors.AddRow({error, name, Grouped(count)});
  }
  absl::StrAppend(&text, "\n", errors.ToString());
  return text;
}

std::string ReportJson(const RunDescription& run, const LoadReport& report) {
  Json json;
  json["run"] = ToJson(run);
  json["elapsed_seconds"] = absl::ToDoubleSeconds(report.elapsed);
  json["peak_in_flight"] = report.peak_in_flight;
  json["worst_send_lag_seconds"] = absl::ToDoubleSeconds(report.worst_send_lag);
  json["interrupted"] = report.interrupted;
  json["all"] = ToJson(report.all);
  json["routers"] = Json::object();
  for (const auto& [name, summary] : report.routers) json["routers"][name] = ToJson(summary);
  // Names come from a command line or a server: what is no UTF-8 in them is replaced, not thrown
  // about.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace penstock::client
