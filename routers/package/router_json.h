// router.json, text to values and back.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "routers/package/router_package.h"

namespace penstock {

// `file` begins every error. The result has no tensors and no source yet. Refused with
// INVALID_ARGUMENT: what is no JSON object, repeated, unknown or missing keys, values out of range,
// an unknown kind or format.
absl::StatusOr<RouterPackage> ParseRouterJson(std::string_view file, std::string_view text,
                                              const RouterCatalogue& catalogue);

std::string FormatRouterJson(const RouterPackage& package);

}  // namespace penstock
