// Expert statistics, as penstock.v1 shows them.
#pragma once

#include <functional>
#include <vector>

#include "penstock/v1/admin.pb.h"
#include "server/telemetry/expert_ledger.h"

namespace penstock {

// A snapshot of all loaded routers. Thread-safe. (PrometheusTelemetry::Snapshot is one.)
using ExpertStatsSource = std::function<std::vector<RouterExpertStats>()>;

v1::RouterStats ToProto(const RouterExpertStats& stats);

}  // namespace penstock
