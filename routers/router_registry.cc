#include "routers/router_registry.h"

#include <utility>

namespace penstock {

RouterRegistry& RouterRegistry::Global() {
  static RouterRegistry registry;
  return registry;
}

void RouterRegistry::Register(RouterKind kind, RouterFactory factory) {
  const std::string name = kind.name;
  catalogue_.Add(std::move(kind));
  factories_[name] = factory;
}

absl::StatusOr<RouterFactory> RouterRegistry::Factory(std::string_view kind) const {
  const auto known = catalogue_.Find(kind);
  if (!known.ok()) return known.status();
  return factories_.find(kind)->second;
}

RouterRegistration::RouterRegistration(RouterKind kind, RouterFactory factory) {
  RouterRegistry::Global().Register(std::move(kind), factory);
}

}  // namespace penstock
