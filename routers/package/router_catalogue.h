// The router kinds that exist, by name.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "routers/package/router_kind.h"

namespace penstock {

// The router name that is reserved for the checkpoint's own gates. The kind that computes them has
// the same name.
inline constexpr std::string_view kCheckpointRouter = "linear";

// Filled at start-up, constant afterwards.
class RouterCatalogue {
 public:
  // A name given twice, or empty, is a mistake in the program: it ends the process.
  void Add(RouterKind kind);

  // An unknown name is INVALID_ARGUMENT and lists the known ones. Pointers stay valid as long as
  // the catalogue.
  absl::StatusOr<const RouterKind*> Find(std::string_view name) const;

  // Sorted by name.
  std::vector<const RouterKind*> Kinds() const;

 private:
  std::map<std::string, RouterKind, std::less<>> kinds_;  // a map never moves its nodes
};

}  // namespace penstock
