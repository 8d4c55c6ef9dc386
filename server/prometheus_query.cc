#include "server/prometheus_query.h"

#include <cctype>
#include <exception>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "clients/cpp/cli/http_get.h"
#include "nlohmann/json.hpp"
#include "server/base/status_macros.h"

namespace penstock {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(30);

std::string PercentEncoded(const std::string& text) {
  std::string out;
  for (const unsigned char byte : text) {
    if (std::isalnum(byte) != 0 || byte == '-' || byte == '_' || byte == '.') {
      out += static_cast<char>(byte);
    } else {
      absl::StrAppend(&out, "%", absl::Hex(byte, absl::kZeroPad2));
    }
  }
  return out;
}

}  // namespace

std::string SamplesPath(const std::string& experiment) {
  // A name of the configuration holds neither quotes nor backslashes.
  return absl::StrCat(
      "/api/v1/query?query=",
      PercentEncoded(absl::StrCat(
          R"q({__name__=~"penstock_experiment_(analysis_.+|arm_halted|duration_seconds_bucket|first_exposures|metric_.+|traffic|uni.+|window_seconds)",)q",
          R"q(experiment=")q", experiment, R"q("})q")));
}

absl::StatusOr<std::vector<ExperimentSample>> ParseSamples(const std::string& json) {
  try {
    const nlohmann::json answer = nlohmann::json::parse(json);
    if (answer.at("status") != "success") {
      return absl::InvalidArgumentError("Prometheus: " + answer.value("error", "the query failed"));
    }
    std::vector<ExperimentSample> samples;
    for (const nlohmann::json& series : answer.at("data").at("result")) {
      ExperimentSample& sample = samples.emplace_back();
      for (const auto& [label, value] : series.at("metric").items()) {
        if (label == "__name__") {
          sample.name = value.get<std::string>();
        } else {
          sample.labels[label] = value.get<std::string>();
        }
      }
      const auto text = series.at("value").at(1).get<std::string>();
      if (!absl::SimpleAtod(text, &sample.value)) {
        return absl::InvalidArgumentError(
            absl::StrCat("Prometheus: ", sample.name, ": got ", text, ", want a number"));
      }
    }
    return samples;
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat("Prometheus: an answer that is none: ", error.what()));
  }
}

absl::StatusOr<std::vector<ExperimentSample>> QuerySamples(const std::string& url,
                                                           const std::string& experiment) {
  absl::string_view rest = url;
  if (!absl::ConsumePrefix(&rest, "http://")) {
    return absl::InvalidArgumentError(
        absl::StrCat("--prometheus: got ", url, ", want http://HOST:PORT"));
  }
  const std::size_t slash = rest.find('/');
  const std::string address(rest.substr(0, slash));
  std::string prefix(slash == absl::string_view::npos ? "" : rest.substr(slash));
  while (!prefix.empty() && prefix.back() == '/') prefix.pop_back();
  const std::string path = prefix + SamplesPath(experiment);
  const absl::StatusOr<std::string> body = client::HttpGet(address, path, kTimeout);
  if (!body.ok()) {
    // Without the query, which is long and nobody's own.
    return absl::Status(
        body.status().code(),
        absl::StrCat("--prometheus: got ", url, ", want a Prometheus server: ",
                     absl::StrReplaceAll(body.status().message(),
                                         {{path, absl::StrCat(prefix, "/api/v1/query")}})));
  }
  return ParseSamples(*body);
}

}  // namespace penstock
