// `penstock assign`: which router a request would get, and why.
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "routers/package/router_catalogue.h"
#include "server/base/clock.h"
#include "server/commands.h"
#include "server/config/config.h"
#include "server/config/names.h"
#include "server/config/values.h"
#include "server/config/violations.h"
#include "server/policy_of_config.h"

namespace penstock {
namespace {

struct AssignFlags {
  std::string file, tenant = "default", unit, router, time;
  std::vector<std::string> overrides;
};

int Fail(const std::string& message, int code) {
  std::cerr << "penstock assign: " << message << "\n";
  return code;
}

int Assign(const AssignFlags& flags) {
  AssignmentQuery query;
  query.router = flags.router;
  query.tenant = flags.tenant;
  // Whichever of them the tenant's experiments go by.
  query.session_id = query.user = query.request_id = flags.unit;
  query.time = Clock::Real().Now();
  if (!flags.time.empty()) {
    const auto time = ParseTimestamp(flags.time);
    if (!time) {
      return Fail("--time: got '" + flags.time + "', want a time such as 2026-12-01T00:00:00Z",
                  kExitUsage);
    }
    query.time = *time;
  }
  const std::vector<std::string> built_in = {std::string(kCheckpointRouter)};
  const auto config =
      LoadConfig(flags.file, {.overrides = flags.overrides, .built_in_routers = built_in});
  if (!config.ok()) return Fail(std::string(config.status().message()), kExitFailure);
  Violations unknown;
  RouterNames(*config, built_in).CheckKnown(flags.router, "--router", &unknown);
  if (!unknown.empty()) {
    return Fail(unknown.Text() +
                    "; a router that LoadRouter added is known to the running server alone: "
                    "penstock-cli experiments assign asks it",
                kExitFailure);
  }
  const Policy policy = PolicyOfConfig(*config, /*model_name=*/"", /*max_context=*/0);
  const auto tenant = policy.tenants.find(flags.tenant);
  if (tenant == policy.tenants.end()) {
    return Fail("--tenant: got '" + flags.tenant + "', want a configured tenant", kExitFailure);
  }
  // Without the packages' fingerprints: revisions are a running server's to tell.
  const Assigner assigner({.default_router = policy.default_router,
                           .traffic_salt = policy.traffic_salt,
                           .experiments = policy.experiments,
                           .fingerprints = {}});
  for (const std::string& line : assigner.Explain(query, tenant->second.routing)) {
    std::cout << line << "\n";
  }
  return assigner.Assign(query, tenant->second.routing).ok() ? kExitOk : kExitFailure;
}

}  // namespace

void AddAssignCommand(CLI::App* app, int* exit_code) {
  CLI::App* command =
      app->add_subcommand("assign", "explain which router a request would get, and why");
  const auto flags = std::make_shared<AssignFlags>();
  command->add_option("--config", flags->file, "the server's YAML file")->required();
  command->add_option("--set", flags->overrides, "path=value over the file; may be repeated")
      ->take_all()
      ->type_name("PATH=VALUE");
  command->add_option("--tenant", flags->tenant, "whose request")->capture_default_str();
  command->add_option("--unit", flags->unit,
                      "its session, user or request id, whichever the tenant's experiments go by");
  command->add_option("--router", flags->router, "the router that the request names");
  command->add_option("--time", flags->time, "of the request (unset: now)");
  command->footer(
      "Exits 1 if the request would be refused.\n\nExample:\n"
      "  penstock assign --config penstock.yaml --tenant acme --unit user-42");
  command->callback([flags, exit_code] { *exit_code = Assign(*flags); });
}

}  // namespace penstock
