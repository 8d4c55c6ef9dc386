#include "routers/package/router_catalogue.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "routers/package/fatal.h"
#include "routers/package/quote.h"

namespace penstock {

void RouterCatalogue::Add(RouterKind kind) {
  const std::string name = kind.name;
  if (name.empty()) Fatal("a router kind has no name");
  if (!kind.tensors || !kind.flops) Fatal(absl::StrCat("router kind ", name, " lacks its rules"));
  if (!kinds_.emplace(name, std::move(kind)).second) {
    Fatal(absl::StrCat("router kind ", name, " is registered twice"));
  }
}

absl::StatusOr<const RouterKind*> RouterCatalogue::Find(std::string_view name) const {
  const auto found = kinds_.find(name);
  if (found != kinds_.end()) return &found->second;
  const std::string known = absl::StrJoin(
      kinds_, ", ", [](std::string* out, const auto& entry) { out->append(entry.first); });
  return absl::InvalidArgumentError(
      absl::StrCat("kind: got ", Quote(name), ", want one of ", known.empty() ? "none" : known));
}

std::vector<const RouterKind*> RouterCatalogue::Kinds() const {
  std::vector<const RouterKind*> kinds;
  for (const auto& [name, kind] : kinds_) kinds.push_back(&kind);
  return kinds;
}

}  // namespace penstock
