#include "server/config/references.h"

#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/config/endpoint.h"
#include "server/config/experiments.h"
#include "server/config/names.h"
#include "server/config/paired_scoring.h"
#include "server/config/schema.h"

namespace penstock {
namespace {

constexpr char kUnlistedTenants[] = "other";  // telemetry's label for them

class ReferenceChecker {
 public:
  ReferenceChecker(const v1::ServerConfig& config, std::span<const std::string> built_in_routers,
                   Violations* violations)
      : config_(config), routers_(config, built_in_routers), violations_(*violations) {}

  void CheckListen() {
    // Nothing listens on listen.http yet: it takes no port.
    const std::pair<const char*, const std::string*> fields[] = {
        {"listen.grpc", &config_.listen().grpc()}, {"listen.ops", &config_.listen().ops()}};
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
    const auto grpc = ParseEndpoint(config_.listen().grpc());
    if (!grpc || grpc->IsLoopback()) return;
    violations_.Add(
        "auth.mode", "nothing",
        absl::StrCat("it said explicitly, since listen.grpc is ",
                     QuoteValue(config_.listen().grpc()),
                     ", no loopback address: 'none' lets everyone in who can reach it"));
  }

  void CheckRouters() {
    const v1::RoutersConfig& routers = config_.routers();
    UniqueNames names("routers.load");
    for (int i = 0; i < routers.load_size(); ++i) {
      names.Add(routers.load(i).name(), i, JoinPath(IndexPath("routers.load", i), "name"),
                &violations_);
    }
    if (routers.load_size() > 0 && routers.root().empty()) {
      violations_.Add("routers.root", "nothing",
                      "the folder that routers.load's paths are relative to");
    }
    if (routers_.size() > routers.max_loaded()) {
      violations_.Add("routers.load",
                      absl::StrCat(routers_.size(), " routers with the checkpoint's own"),
                      absl::StrCat("at most routers.max_loaded, ", routers.max_loaded()));
    }
    routers_.CheckKnown(routers.default_(), "routers.default", &violations_);
  }

  void CheckTenants() {
    UniqueNames names("tenants");
    for (int i = 0; i < config_.tenants_size(); ++i) {
      const std::string path = IndexPath("tenants", i);
      const std::string& name = config_.tenants(i).name();
      names.Add(name, i, JoinPath(path, "name"), &violations_);
      if (name == kUnlistedTenants) {
        violations_.Add(JoinPath(path, "name"), QuoteValue(name),
                        "another name: metrics use this one for tenants that are not listed");
      }
      CheckTenantRouters(config_.tenants(i), path);
    }
  }

 private:
  void CheckTenantRouters(const v1::TenantConfig& tenant, const std::string& path) {
    UniqueNames allowed("routers");
    for (int i = 0; i < tenant.routers_size(); ++i) {
      const std::string field = IndexPath(JoinPath(path, "routers"), i);
      routers_.CheckKnown(tenant.routers(i), field, &violations_);
      allowed.Add(tenant.routers(i), i, field, &violations_);
    }
    routers_.CheckKnown(tenant.pin(), JoinPath(path, "pin"), &violations_);
    if (allowed.empty()) return;
    if (!tenant.pin().empty()) {
      if (!allowed.Contains(tenant.pin())) {
        violations_.Add(JoinPath(path, "pin"), QuoteValue(tenant.pin()), "one of its routers");
      }
    } else if (!allowed.Contains(config_.routers().default_())) {
      violations_.Add(JoinPath(path, "routers"), absl::StrJoin(tenant.routers(), ", "),
                      absl::StrCat("the default router ", QuoteValue(config_.routers().default_()),
                                   " among them, or a pin: its requests that name no router "
                                   "would all be refused"));
    }
  }

  const v1::ServerConfig& config_;
  const RouterNames routers_;
  Violations& violations_;
};

}  // namespace

void CheckReferences(const v1::ServerConfig& config, std::span<const std::string> built_in_routers,
                     Violations* violations) {
  ReferenceChecker checker(config, built_in_routers, violations);
  checker.CheckListen();
  checker.CheckRouters();
  checker.CheckTenants();
  CheckExperiments(config, built_in_routers, violations);
  CheckPairedScoring(config, violations);
}

}  // namespace penstock
