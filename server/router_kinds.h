// The router kinds of this build, for code without torch.
#pragma once

#include <string>
#include <vector>

#include "routers/package/router_catalogue.h"

namespace penstock {

const RouterCatalogue& RouterKinds();

// Sorted.
std::vector<std::string> RouterKindNames();

}  // namespace penstock
