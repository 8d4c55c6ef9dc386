// Telemetry's counts of routers as experiments take them. Pure.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "server/experiments/ledger/router_look.h"
#include "server/telemetry/expert_ledger.h"

namespace penstock {

// A MeasureRouting: means of ComputeExpertMeasures over the layers that have rows.
std::optional<RouterMeasures> MeasureRouter(std::span<const RoutedLayer> layers);

// Those of the telemetry window; nullopt: it has no rows.
std::optional<RouterMeasures> MeasuresLately(std::span<const LayerExpertStats> layers);

// What was decided between two snapshots of one router, layer by layer; empty where the second does
// not continue the first: the router was loaded anew.
std::vector<RoutedLayer> RoutingBetween(std::span<const LayerExpertStats> before,
                                        std::span<const LayerExpertStats> after);

}  // namespace penstock
