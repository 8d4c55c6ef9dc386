// Untrained router packages for a checkpoint.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "routers/package/router_package.h"
#include "server/model/checkpoint/checkpoint.h"

namespace penstock {

struct InitRouterOptions {
  std::string kind;
  std::string folder;  // of the package
  std::uint64_t seed = 1;
  bool neutral = false;   // route exactly as the checkpoint's gate, where the kind can
  Hyper hyper;            // in place of the kind's fallbacks
  std::string text_file;  // for kinds that place tokens: how often each occurs in it; empty: once
  bool replace = false;
};

absl::StatusOr<RouterPackage> WriteUntrainedRouter(const Checkpoint& checkpoint,
                                                   const InitRouterOptions& options);

}  // namespace penstock
