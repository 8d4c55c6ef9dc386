#include "server/config/names.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/config/schema.h"

namespace penstock {

RouterNames::RouterNames(const v1::ServerConfig& config,
                         std::span<const std::string> built_in_routers)
    : none_loaded_(config.routers().load().empty()) {
  for (const std::string& name : built_in_routers) Add(name);
  for (const v1::RouterEntry& entry : config.routers().load()) Add(entry.name());
}

void RouterNames::Add(const std::string& name) {
  if (!name.empty() && known_.insert(name).second) ordered_.push_back(name);
}

void RouterNames::CheckKnown(const std::string& router, std::string_view path,
                             Violations* violations) const {
  if (router.empty() || known_.contains(router)) return;
  if (none_loaded_ && violations->Cover("routers.load")) return;
  violations->Add(path, QuoteValue(router),
                  (ordered_.size() > 1 ? "one of " : "") + absl::StrJoin(ordered_, ", "));
}

void UniqueNames::Add(const std::string& name, int index, std::string_view path,
                      Violations* violations) {
  if (name.empty()) return;
  const auto [first, is_new] = seen_.emplace(name, index);
  if (is_new) return;
  violations->Add(path, QuoteValue(name),
                  "a name other than that of " + IndexPath(list_, first->second));
}

}  // namespace penstock
