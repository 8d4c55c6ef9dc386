// Names that one part of the file gives and another refers to.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "penstock/v1/config.pb.h"
#include "server/config/violations.h"

namespace penstock {

// The routers that there will be: those without a package and those of routers.load.
class RouterNames {
 public:
  RouterNames(const v1::ServerConfig& config, std::span<const std::string> built_in_routers);

  bool Contains(const std::string& router) const { return known_.contains(router); }
  int size() const { return static_cast<int>(ordered_.size()); }
  // Adds a violation if there is no such router; an empty name is for others to judge, and which
  // there are is unknown where routers.load itself was refused.
  void CheckKnown(const std::string& router, std::string_view path, Violations* violations) const;

 private:
  void Add(const std::string& name);

  bool none_loaded_ = false;
  absl::flat_hash_set<std::string> known_;
  std::vector<std::string> ordered_;  // the same, in the order of the file
};

// Of one list: each name stands once.
class UniqueNames {
 public:
  // `list`: its name in violations.
  explicit UniqueNames(std::string_view list) : list_(list) {}

  // Adds a violation if an entry before has this name. An empty name is for others to judge.
  void Add(const std::string& name, int index, std::string_view path, Violations* violations);
  bool Contains(const std::string& name) const { return seen_.contains(name); }
  bool empty() const { return seen_.empty(); }

 private:
  const std::string list_;
  absl::flat_hash_map<std::string, int> seen_;
};

}  // namespace penstock
