#include "server/config/references.h"

#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/config/endpoint.h"
#include "server/config/schema.h"

namespace penstock {
namespace {

constexpr char kUnlistedTenants[] = "other";  // telemetry's label for them

class ReferenceChecker {
 public:
  ReferenceChecker(const v1::ServerConfig& config, std::span<const std::string> built_in_routers,
                   Violations* violations)
      : config_(config), violations_(*violations) {
    for (const std::string& name : built_in_routers) AddRouter(name);
  }

  void CheckListen() {
    const std::pair<const char*, const std::string*> fields[] = {
        {"listen.grpc", &config_.listen().grpc()},
        {"listen.http", &config_.listen().http()},
        {"listen.ops", &config_.listen().ops()}};
    absl::flat_hash_map<std::string, std::string> taken;  // endpoint -> field
    for (const auto& [path, text] : fields) {
      const auto endpoint = ParseEndpoint(*text);
      if (!endpoint || endpoint->port == 0) continue;
      const auto [other, is_new] = taken.emplace(endpoint->ToString(), path);
      if (!is_new) {
        violations_.Add(path, QuoteValue(*text), "an endpoint other than " + other->second + "'s");
      }
    }
    if (config_.auth().mode() != v1::AuthConfig::MODE_UNSPECIFIED) return;
    // Operations (metrics, health) have no clients to authenticate: they listen where they are told
    // to.
    for (const auto& [path, text] : {fields[0], fields[1]}) {
      const auto endpoint = ParseEndpoint(*text);
      if (!endpoint || endpoint->IsLoopback()) continue;
      violations_.Add(
          "auth.mode", "nothing",
          absl::StrCat("it said explicitly, since ", path, " is ", QuoteValue(*text),
                       ", no loopback address: 'none' lets everyone in who can reach it"));
    }
  }

  void CheckRouters() {
    const v1::RoutersConfig& routers = config_.routers();
    absl::flat_hash_map<std::string, int> seen;
    for (int i = 0; i < routers.load_size(); ++i) {
      const std::string& name = routers.load(i).name();
      const std::string path = JoinPath(IndexPath("routers.load", i), "name");
      CheckUnique(name, i, path, "routers.load", &seen);
      AddRouter(name);
    }
    if (routers.load_size() > 0 && routers.root().empty()) {
      violations_.Add("routers.root", "nothing",
                      "the folder that routers.load's paths are relative to");
    }
    if (static_cast<int>(known_list_.size()) > routers.max_loaded()) {
      violations_.Add("routers.load",
                      absl::StrCat(known_list_.size(), " routers with the checkpoint's own"),
                      absl::StrCat("at most routers.max_loaded, ", routers.max_loaded()));
    }
    CheckKnown(routers.default_(), "routers.default");
  }

  void CheckTenants() {
    absl::flat_hash_map<std::string, int> seen;
    for (int i = 0; i < config_.tenants_size(); ++i) {
      const std::string path = IndexPath("tenants", i);
      const std::string& name = config_.tenants(i).name();
      CheckUnique(name, i, JoinPath(path, "name"), "tenants", &seen);
      if (name == kUnlistedTenants) {
        violations_.Add(JoinPath(path, "name"), QuoteValue(name),
                        "another name: metrics use this one for tenants that are not listed");
      }
      CheckTenantRouters(config_.tenants(i), path);
    }
  }

 private:
  void AddRouter(const std::string& name) {
    if (!name.empty() && known_.insert(name).second) known_list_.push_back(name);
  }

  void CheckUnique(const std::string& name, int index, const std::string& path,
                   std::string_view list, absl::flat_hash_map<std::string, int>* seen) {
    if (name.empty()) return;
    const auto [first, is_new] = seen->emplace(name, index);
    if (is_new) return;
    violations_.Add(path, QuoteValue(name),
                    "a name other than that of " + IndexPath(list, first->second));
  }

  void CheckKnown(const std::string& router, const std::string& path) {
    if (router.empty() || known_.contains(router)) return;
    violations_.Add(path, QuoteValue(router),
                    (known_list_.size() > 1 ? "one of " : "") + absl::StrJoin(known_list_, ", "));
  }

  void CheckTenantRouters(const v1::TenantConfig& tenant, const std::string& path) {
    absl::flat_hash_map<std::string, int> allowed;
    for (int i = 0; i < tenant.routers_size(); ++i) {
      const std::string field = IndexPath(JoinPath(path, "routers"), i);
      CheckKnown(tenant.routers(i), field);
      CheckUnique(tenant.routers(i), i, field, "routers", &allowed);
    }
    CheckKnown(tenant.pin(), JoinPath(path, "pin"));
    if (allowed.empty()) return;
    if (!tenant.pin().empty()) {
      if (!allowed.contains(tenant.pin())) {
        violations_.Add(JoinPath(path, "pin"), QuoteValue(tenant.pin()), "one of its routers");
      }
    } else if (!allowed.contains(config_.routers().default_())) {
      violations_.Add(JoinPath(path, "routers"), absl::StrJoin(tenant.routers(), ", "),
                      absl::StrCat("the default router ", QuoteValue(config_.routers().default_()),
                                   " among them, or a pin: its requests that name no router "
                                   "would all be refused"));
    }
  }

  const v1::ServerConfig& config_;
  Violations& violations_;
  absl::flat_hash_set<std::string> known_;
  std::vector<std::string> known_list_;  // the same, in order
};

}  // namespace

void CheckReferences(const v1::ServerConfig& config, std::span<const std::string> built_in_routers,
                     Violations* violations) {
  ReferenceChecker checker(config, built_in_routers, violations);
  checker.CheckListen();
  checker.CheckRouters();
  checker.CheckTenants();
}

}  // namespace penstock
