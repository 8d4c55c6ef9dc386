// A router under the name that requests use for it.
#pragma once

#include <memory>
#include <string>

#include "absl/time/time.h"

namespace penstock {

class Router;  // routers/router.h

// Immutable. Whoever holds the pointer may route with it: a swapped or unloaded router lives until
// its last request ends.
struct LoadedRouter {
  std::string name;         // what requests, metrics and experiments call it
  std::string fingerprint;  // package_fingerprint, 64 hex digits: what the prefix cache keys by
  std::string path;  // of the package, relative to routers.root; empty: the checkpoint's own gates
  absl::Time loaded_at;
  std::shared_ptr<const Router> router;  // never null, except in tests with a fake model
};

}  // namespace penstock
