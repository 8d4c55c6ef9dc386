// An experiment "aa" on real servers, and what a report says of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "tests/e2e/server_process.h"

namespace penstock {

// Configuration of an experiment whose arms, a and b, have the same router. Every request is a
// unit, so that windows close at once. `more` stands beside its list.
std::string SameArms(const std::string& more = "");

void SendTraffic(const ServerProcess& server, int requests, const std::string& seed);

// What `program` ("penstock", "penstock-cli") reports with these arguments. Discarded: no JSON.
nlohmann::json ReportOf(const std::string& program, std::vector<std::string> arguments);

// Of an arm of the report; a test failure, and null, where it lacks the metric.
const nlohmann::json& MetricOf(const nlohmann::json& report, const std::string& arm,
                               const std::string& metric);

// Units that an arm's metric was measured of.
std::int64_t UnitsOf(const nlohmann::json& report, const std::string& arm,
                     const std::string& metric);
std::int64_t Units(const nlohmann::json& report, const std::string& arm);  // of "requests"

}  // namespace penstock
