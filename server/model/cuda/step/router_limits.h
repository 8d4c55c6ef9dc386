// Which routers' programs the device has room for.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "kernels/router_program.h"

namespace penstock {

// Largest h of a program: units of its hidden layer, or heads × experts.
inline constexpr std::int64_t kMaxHidden = 1024;

// INVALID_ARGUMENT, naming the router's `kind`, where it has no program or one that is too large.
absl::Status CheckProgram(std::string_view kind, const std::optional<RouterProgram>& program);

}  // namespace penstock
