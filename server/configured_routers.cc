#include "server/configured_routers.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"

namespace penstock {
namespace {

const v1::RouterEntry* FindEntry(const v1::ServerConfig& config, const std::string& name) {
  for (const v1::RouterEntry& entry : config.routers().load()) {
    if (entry.name() == name) return &entry;
  }
  return nullptr;
}

}  // namespace

absl::Status LoadConfigured(const v1::ServerConfig& config, RouterSet* routers) {
  for (const v1::RouterEntry& entry : config.routers().load()) {
    const absl::Status loaded =
        routers->Load(entry.name(), entry.path(), /*replace=*/false).status();
    if (loaded.ok()) continue;
    return absl::Status(loaded.code(),
                        absl::StrCat("routers.load: ", entry.name(), ": ", loaded.message()));
  }
  return absl::OkStatus();
}

absl::Status LoadAdded(const v1::ServerConfig& running, const v1::ServerConfig& updated,
                       const RouterLoader& loader, RouterSet* routers) {
  std::vector<v1::RouterEntry> fresh;
  int places = static_cast<int>(routers->List().size());
  for (const v1::RouterEntry& entry : updated.routers().load()) {
    const v1::RouterEntry* const old = FindEntry(running, entry.name());
    const bool loaded = routers->Find(entry.name()).ok();
    if (loaded && old != nullptr && old->path() == entry.path()) continue;
    PENSTOCK_RETURN_IF_ERROR(loader(entry.name(), entry.path()).status());
    fresh.push_back(entry);
    places += loaded ? 0 : 1;
  }
  if (places > updated.routers().max_loaded()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("routers.load: the file and what is loaded already need ", places,
                     " places, routers.max_loaded is ", updated.routers().max_loaded()));
  }
  for (const v1::RouterEntry& entry : fresh) {
    PENSTOCK_RETURN_IF_ERROR(routers->Load(entry.name(), entry.path(), /*replace=*/true).status());
  }
  return absl::OkStatus();
}

void UnloadRemoved(const v1::ServerConfig& running, const v1::ServerConfig& updated,
                   RouterSet* routers) {
  for (const v1::RouterEntry& entry : running.routers().load()) {
    if (FindEntry(updated, entry.name()) != nullptr) continue;
    const absl::Status status = routers->Unload(entry.name());
    if (!status.ok()) {
      Log(LogLevel::kWarning, "router not unloaded",
          {{"router", entry.name()}, {"error", std::string(status.message())}});
    }
  }
}

std::string UserOfRouter(const Policy& policy, const std::string& router) {
  if (router == policy.default_router) return "it is routers.default";
  for (const auto& [tenant, entry] : policy.tenants) {
    if (entry.routing.pin == router) return absl::StrCat("tenant ", tenant, " is pinned to it");
  }
  for (const Experiment& experiment : policy.experiments) {
    for (const Arm& arm : experiment.arms) {
      if (arm.router != router) continue;
      return absl::StrCat("it is arm ", arm.name, " of experiment ", experiment.name);
    }
  }
  return "";
}

}  // namespace penstock
