// Expert load as tables.
#pragma once

#include <string>

#include "penstock/v1/admin.pb.h"

namespace penstock::client {

// A row per layer: tokens in the window and the measures; "–" where the window is empty.
std::string ExpertStatsTable(const v1::RouterStats& router);

// A row per layer and group of ten experts: tokens since start.
std::string ExpertTokensTable(const v1::RouterStats& router);

}  // namespace penstock::client
