// The routers that are loaded now, by name.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/scheduler/loaded_router.h"

namespace penstock {

// Makes a router from a package folder, given as a path relative to routers.root.
using RouterLoader =
    std::function<absl::StatusOr<LoadedRouter>(const std::string& name, const std::string& path)>;

// Thread-safe. Readers take pointers; a router that is replaced or unloaded lives on until the last
// of them is dropped.
class RouterSet {
 public:
  struct Options {
    RouterLoader loader;
    int max_loaded = 16;  // the checkpoint's own included
    // Called after every change with all names, sorted. May be empty.
    std::function<void(const std::vector<std::string>&)> on_change;
    // Why a router may not be unloaded ("it is the default"); empty: it may. May be empty.
    std::function<std::string(const std::string& name)> user_of;
  };

  // `own` are the checkpoint's gates, under the reserved name.
  RouterSet(Options options, std::shared_ptr<const LoadedRouter> own);

  // NOT_FOUND (reason UNKNOWN_ROUTER), listing the known names.
  absl::StatusOr<std::shared_ptr<const LoadedRouter>> Find(const std::string& name) const;

  // ALREADY_EXISTS: the name is taken and `replace` is false. INVALID_ARGUMENT: a bad name, the
  // reserved one, a path that is absolute or leaves the root, or what the package itself is refused
  // for. RESOURCE_EXHAUSTED: max_loaded. Returns the new router and the one that it replaced, if
  // any.
  struct Loaded {
    std::shared_ptr<const LoadedRouter> router, replaced;
  };
  absl::StatusOr<Loaded> Load(const std::string& name, const std::string& path, bool replace);

  // NOT_FOUND; FAILED_PRECONDITION naming the user of it.
  absl::Status Unload(const std::string& name);

  // Sorted by name.
  std::vector<std::shared_ptr<const LoadedRouter>> List() const;

  // Rises with every change: what was derived from the routers at another one is out of date.
  std::uint64_t generation() const;

 private:
  void Changed(const std::vector<std::string>& names) const;
  std::vector<std::string> NamesLocked() const;
  absl::Status UnknownLocked(const char* field,
                             const std::string& name) const;  // what no router is called

  const Options options_;
  mutable std::mutex mutex_;
  std::mutex loading_;  // one load at a time, off mutex_: reading a package may take seconds
  std::map<std::string, std::shared_ptr<const LoadedRouter>> routers_;
  const std::string own_name_;
  std::uint64_t generation_ = 0;  // guarded by mutex_
};

}  // namespace penstock
