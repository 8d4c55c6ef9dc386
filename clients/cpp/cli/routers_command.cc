#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cpp/cli/commands.h"
#include "clients/cpp/cli/expert_stats_table.h"
#include "clients/cpp/cli/json.h"
#include "clients/cpp/terminal/table.h"

namespace penstock::client {
namespace {

absl::Status ListRouters(const Invocation& invocation) {
  auto client = invocation.Connect();
  if (!client.ok()) return client.status();
  const auto response = (*client)->ListRouters(invocation.call_options());
  if (!response.ok()) return response.status();
  Terminal& terminal = invocation.terminal;
  if (invocation.json) {
    terminal.out << ToJson(*response) << std::endl;
    return absl::OkStatus();
  }
  Table table({{"name", Align::kLeft},
               {"kind", Align::kLeft},
               {"package", Align::kLeft},
               {"fingerprint", Align::kLeft},
               {"parameters/layer"},
               {"FLOP/token/layer"},
               {"in flight"}});
  for (const v1::RouterDescription& router : response->routers()) {
    table.AddRow(
        {router.name() + (router.is_default() ? " *" : ""), router.kind(),
         router.path().empty() ? "(checkpoint)" : router.path(),
         router.package_fingerprint().substr(0, 12), Grouped(router.parameters_per_layer()),
         Grouped(router.flops_per_token_per_layer()), absl::StrCat(router.requests_in_flight())});
  }
  terminal.out << table.ToString() << "* the default. Kinds that can be loaded: "
               << absl::StrJoin(response->kinds(), ", ") << std::endl;
  return absl::OkStatus();
}

absl::Status LoadRouter(const v1::LoadRouterRequest& request, const Invocation& invocation) {
  auto client = invocation.Connect();
  if (!client.ok()) return client.status();
  const auto response = (*client)->LoadRouter(request, invocation.call_options());
  if (!response.ok()) return response.status();
  Terminal& terminal = invocation.terminal;
  if (invocation.json) {
    terminal.out << ToJson(*response) << std::endl;
    return absl::OkStatus();
  }
  const v1::RouterDescription& router = response->router();
  terminal.out << "loaded " << router.name() << " (" << router.kind() << ", "
               << Grouped(router.parameters_per_layer()) << " parameters per layer, fingerprint "
               << router.package_fingerprint().substr(0, 12) << ")";
  if (!response->replaced_fingerprint().empty()) {
    terminal.out << " in place of " << response->replaced_fingerprint().substr(0, 12);
  }
  terminal.out << std::endl;
  return absl::OkStatus();
}

absl::Status UnloadRouter(const std::string& name, const Invocation& invocation) {
  auto client = invocation.Connect();
  if (!client.ok()) return client.status();
  absl::Status status = (*client)->UnloadRouter(name, invocation.call_options());
  if (status.ok() && !invocation.json) {
    invocation.terminal.out << "unloaded " << name << std::endl;
  }
  return status;
}

struct StatsFlags {
  std::string router;
  double watch_seconds = 0;
  bool experts = false;
};

void PrintStats(const StatsFlags& flags, const v1::GetExpertStatsResponse& response,
                const Invocation& invocation) {
  Terminal& terminal = invocation.terminal;
  if (invocation.json) {
    terminal.out << ToJson(response) << std::endl;
    return;
  }
  for (const v1::RouterStats& router : response.routers()) {
    terminal.out << Styled(terminal, Style::kBold, router.router()) << ": "
                 << Grouped(router.tokens())
                 << " tokens routed since start; measures over the last 60 s\n"
                 << ExpertStatsTable(router) << '\n';
    if (flags.experts) terminal.out << ExpertTokensTable(router) << '\n';
  }
  terminal.out.flush();
}

absl::Status ShowStats(const StatsFlags& flags, const Invocation& invocation) {
  auto client = invocation.Connect();
  if (!client.ok()) return client.status();
  if (flags.watch_seconds > 0) {
    v1::WatchExpertStatsRequest request;
    request.set_router(flags.router);
    const absl::Duration interval = absl::Seconds(flags.watch_seconds);
    request.mutable_interval()->set_seconds(absl::ToInt64Seconds(interval));
    request.mutable_interval()->set_nanos(static_cast<int>(
        absl::ToInt64Nanoseconds(interval - absl::Seconds(absl::ToInt64Seconds(interval)))));
    return (*client)->WatchExpertStats(
        request,
        [&](const v1::GetExpertStatsResponse& response) {
          PrintStats(flags, response, invocation);
          return static_cast<bool>(invocation.terminal.out);  // a closed pipe ends it
        },
        invocation.call_options());
  }
  const auto response = (*client)->GetExpertStats(flags.router, invocation.call_options());
  if (!response.ok()) return response.status();
  PrintStats(flags, *response, invocation);
  return absl::OkStatus();
}

}  // namespace

void AddRoutersCommand(CLI::App& app, Invocation& invocation) {
  CLI::App* routers = AddCommand(app, "routers", "Lists, loads, unloads and measures routers",
                                 R"(  penstock-cli routers list
  penstock-cli routers load candidate --path candidate-v3
  penstock-cli routers stats candidate
  penstock-cli routers unload candidate)");
  routers->require_subcommand(1);

  CLI::App* list = AddCommand(*routers, "list", "The routers that are loaded now",
                              "  penstock-cli routers list --json");
  list->callback([&invocation] { invocation.run = [&] { return ListRouters(invocation); }; });

  const auto request = std::make_shared<v1::LoadRouterRequest>();
  CLI::App* load = AddCommand(*routers, "load", "Loads a package; requests in flight are untouched",
                              R"(  penstock-cli routers load candidate
  penstock-cli routers load control --path experiments/candidate-v4 --replace)");
  load->add_option_function<std::string>(
          "NAME", [request](const std::string& name) { request->set_name(name); },
          "What requests will call it")
      ->required();
  load->add_option_function<std::string>(
      "--path", [request](const std::string& path) { request->set_path(path); },
      "The package, relative to the server's routers.root (unset: NAME)");
  load->add_flag_callback(
      "--replace", [request] { request->set_replace(true); }, "Take the place of a loaded NAME");
  load->callback([request, &invocation] {
    if (request->path().empty()) request->set_path(request->name());
    invocation.run = [request, &invocation] { return LoadRouter(*request, invocation); };
  });

  const auto name = std::make_shared<std::string>();
  CLI::App* unload = AddCommand(*routers, "unload", "Takes a router away once its requests end",
                                "  penstock-cli routers unload candidate");
  unload->add_option("NAME", *name, "A loaded router")->required();
  unload->callback([name, &invocation] {
    invocation.run = [name, &invocation] { return UnloadRouter(*name, invocation); };
  });

  const auto flags = std::make_shared<StatsFlags>();
  CLI::App* stats = AddCommand(*routers, "stats", "Expert load by router and layer",
                               R"(  penstock-cli routers stats
  penstock-cli routers stats candidate --experts
  penstock-cli routers stats --watch 5)");
  stats->add_option("NAME", flags->router, "A loaded router (unset: all)");
  stats->add_flag("--experts", flags->experts, "Also the tokens of every expert since start");
  stats->add_option("--watch", flags->watch_seconds, "Again after so many seconds, until Ctrl-C")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.1, 86400.0));
  stats->callback([flags, &invocation] {
    invocation.run = [flags, &invocation] { return ShowStats(*flags, invocation); };
  });
}

}  // namespace penstock::client
