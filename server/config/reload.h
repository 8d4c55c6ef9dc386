// What a changed configuration file changes on a running server.
#pragma once

#include <string>
#include <vector>

#include "penstock/v1/config.pb.h"

namespace penstock {

struct ConfigChange {
  std::string path;         // "engine.max_batch", "tenants[acme].weight", "tenants[acme]"
  std::string from;         // in the file's notation; empty: absent before
  std::string to;           // empty: absent now
  bool at_restart = false;  // the running server keeps the old value

  // "tenants[acme].weight: changed from 1 to 2", "engine.max_batch: changed from 256 to 128, takes
  // effect at restart", "tenants[acme]: added"
  std::string ToString() const;
};

struct ConfigReload {
  std::vector<ConfigChange> changes;  // in the schema's order; empty: nothing changed
  // What the server runs under from now on: `updated` where a reload applies it, `running`
  // everywhere else.
  v1::ServerConfig effective;
};

// Both configurations are valid ones, as LoadConfig returns them. Which fields a reload applies
// stands in the schema.
ConfigReload DiffForReload(const v1::ServerConfig& running, const v1::ServerConfig& updated);

}  // namespace penstock
