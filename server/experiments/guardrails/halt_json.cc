#include "server/experiments/guardrails/halt_json.h"

#include <cmath>
#include <cstdint>
#include <string>

namespace penstock {
namespace {

constexpr HaltSource kSources[] = {HaltSource::kConfiguration, HaltSource::kOperator,
                                   HaltSource::kGuardrail, HaltSource::kDamagedState,
                                   HaltSource::kPeer};

std::optional<HaltSource> SourceOf(const std::string& name) {
  for (const HaltSource source : kSources) {
    if (Name(source) == name) return source;
  }
  return std::nullopt;
}

}  // namespace

std::string_view Name(HaltSource source) {
  switch (source) {
    case HaltSource::kConfiguration:
      return "configuration";
    case HaltSource::kOperator:
      return "operator";
    case HaltSource::kGuardrail:
      return "guardrail";
    case HaltSource::kDamagedState:
      return "damaged_state";
    case HaltSource::kPeer:
      return "peer";
  }
  return "";
}

nlohmann::ordered_json HaltToJson(const ArmHalt& halt) {
  return {{"source", std::string(Name(halt.source))},
          {"reason", halt.reason},
          {"time_ns", absl::ToUnixNanos(halt.time)},
          {"metric", halt.metric},
          {"value", halt.value},
          {"bound", halt.bound}};
}

std::optional<ArmHalt> HaltFromJson(const nlohmann::ordered_json& json) {
  const auto source = SourceOf(json.at("source").get<std::string>());
  if (!source) return std::nullopt;
  return ArmHalt{
      .source = *source,
      .reason = json.at("reason").get<std::string>(),
      .time = absl::FromUnixNanos(json.at("time_ns").get<std::int64_t>()),
      .metric = json.at("metric").get<std::string>(),
      // JSON has no infinities: null is read back as NaN.
      .value = json.at("value").is_null() ? std::nan("") : json.at("value").get<double>(),
      .bound = json.at("bound").get<double>()};
}

}  // namespace penstock
