#include "server/router_kinds.h"

#include "routers/router_registry.h"

namespace penstock {

const RouterCatalogue& RouterKinds() { return RouterRegistry::Global().catalogue(); }

std::vector<std::string> RouterKindNames() {
  std::vector<std::string> names;
  for (const RouterKind* kind : RouterKinds().Kinds()) names.push_back(kind->name);
  return names;
}

}  // namespace penstock
