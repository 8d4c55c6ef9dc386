// `penstock report`: one report over several servers, from themselves or from Prometheus.
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cpp/cli/json.h"
#include "clients/cpp/client.h"
#include "clients/cpp/error.h"
#include "clients/cpp/report/report_page.h"
#include "clients/cpp/report/report_text.h"
#include "routers/package/router_catalogue.h"
#include "server/base/clock.h"
#include "server/base/status_macros.h"
#include "server/commands.h"
#include "server/config/config.h"
#include "server/experiment_desk.h"
#include "server/experiment_figures.h"
#include "server/merged_replicas.h"
#include "server/prometheus_query.h"

namespace penstock {
namespace {

struct ReportFlags {
  std::string experiment, revision, prometheus, config, html;
  std::vector<std::string> servers, overrides;
  bool units_stay = false, json = false;
};

absl::StatusOr<AskedSnapshot> FetchSnapshot(const std::string& server, const ReportFlags& flags) {
  client::Client::Options options;
  options.address = server;
  PENSTOCK_ASSIGN_OR_RETURN(const std::unique_ptr<client::Client> connection,
                            client::Client::Connect(std::move(options)));
  v1::GetExperimentSnapshotRequest request;
  request.set_experiment(flags.experiment);
  request.set_revision(flags.revision);
  SnapshotReader reader;
  absl::Status read;
  PENSTOCK_RETURN_IF_ERROR(connection->GetExperimentSnapshot(
      request, [&](const v1::GetExperimentSnapshotResponse& message) {
        read = reader.Add(message);
        return read.ok();
      }));
  PENSTOCK_RETURN_IF_ERROR(read);
  return reader.Finish();
}

absl::StatusOr<ExperimentReport> OfServers(const ReportFlags& flags) {
  MergedReplicas replicas;
  for (const std::string& server : flags.servers) {
    absl::StatusOr<AskedSnapshot> one = FetchSnapshot(server, flags);
    if (!one.ok()) {
      const absl::string_view why = one.status().message();
      return absl::Status(one.status().code(), absl::StrContains(why, server)
                                                   ? std::string(why)
                                                   : absl::StrCat(server, ": ", why));
    }
    PENSTOCK_RETURN_IF_ERROR(replicas.Add(server, *std::move(one)));
  }
  PENSTOCK_ASSIGN_OR_RETURN(const AskedSnapshot all, replicas.Finish());
  return MakeReport(all.snapshot, all.question, all.halted, {});
}

absl::StatusOr<ExperimentReport> OfPrometheus(const ReportFlags& flags) {
  PENSTOCK_ASSIGN_OR_RETURN(
      const v1::ServerConfig config,
      LoadConfig(flags.config, {.overrides = flags.overrides,
                                .built_in_routers = {std::string(kCheckpointRouter)}}));
  std::vector<std::string> names;
  for (const AnalysisPlan& plan : PlansOf(config)) {
    names.push_back(plan.experiment.name);
    if (plan.experiment.name != flags.experiment) continue;
    PENSTOCK_ASSIGN_OR_RETURN(const std::vector<ExperimentSample> samples,
                              QuerySamples(flags.prometheus, flags.experiment));
    PENSTOCK_ASSIGN_OR_RETURN(
        LedgerSnapshot snapshot,
        GatherFigures(samples, plan.experiment, plan.outcomes, flags.revision));
    snapshot.taken = Clock::Real().Now();
    // A unit that is a request is on one replica; a slice is on all of them.
    const bool whole = plan.experiment.unit == UnitKind::kRequest && !snapshot.switchback;
    // Whatever --units-stay says: some were seen twice.
    const bool split = snapshot.shared_units.split > 0 && !snapshot.switchback;
    std::vector<HaltedArm> halted;
    for (const auto& [arm, replicas] : GatherHalts(samples, snapshot.revision)) {
      halted.push_back({arm, absl::StrCat("on ", replicas, " of ", snapshot.replicas,
                                          snapshot.replicas == 1 ? " replica" : " replicas")});
    }
    return MakeReport(
        snapshot, QuestionsOf(config).at(flags.experiment), halted,
        {.units_may_be_split = split || (snapshot.replicas > 1 && !whole && !flags.units_stay),
         .of_series = true});
  }
  return absl::NotFoundError(
      absl::StrCat("EXPERIMENT: got ", flags.experiment, ", ", flags.config,
                   " has: ", names.empty() ? "none" : absl::StrJoin(names, ", ")));
}

int Report(const ReportFlags& flags) {
  const auto fail = [](const std::string& message, int code) {
    std::cerr << "penstock report: " << message << "\n";
    return code;
  };
  if (flags.servers.empty() == flags.prometheus.empty()) {
    return fail("want either --server, once for each replica, or --prometheus", kExitUsage);
  }
  if (flags.prometheus.empty() &&
      (flags.units_stay || !flags.config.empty() || !flags.overrides.empty())) {
    return fail("--config, --set and --units-stay go with --prometheus: servers know the rest",
                kExitUsage);
  }
  if (!flags.prometheus.empty() && flags.config.empty()) {
    return fail("--config: got nothing, want the servers' file: it has the question and the shares",
                kExitUsage);
  }
  const absl::StatusOr<ExperimentReport> made =
      flags.servers.empty() ? OfPrometheus(flags) : OfServers(flags);
  if (!made.ok()) return fail(std::string(made.status().message()), kExitFailure);
  const v1::ExperimentReport report = ToProto(*made);
  if (!flags.html.empty()) {
    const absl::Status written = client::WriteReportPage(report, flags.html);
    if (!written.ok()) return fail(std::string(written.message()), kExitFailure);
  }
  client::Terminal terminal = client::ProcessTerminal();
  if (flags.json) {
    terminal.out << client::ToJson(report) << std::endl;
  } else if (flags.html.empty()) {
    terminal.out << client::ReportText(report, terminal) << std::flush;
  } else {
    terminal.out << report.summary() << "\nwrote " << flags.html << std::endl;
  }
  return kExitOk;
}

}  // namespace

void AddReportCommand(CLI::App* app, int* exit_code) {
  CLI::App* command =
      app->add_subcommand("report", "what an experiment says, over all replicas together");
  const auto flags = std::make_shared<ReportFlags>();
  command->add_option("EXPERIMENT", flags->experiment, "its name in the configuration")->required();
  command
      ->add_option("--server", flags->servers,
                   "gRPC address of a replica where it serves AdminService: a loopback one, a "
                   "tunnel to one, or unix:PATH of its listen.admin; once for each: merged unit by "
                   "unit")
      ->take_all()
      ->type_name("HOST:PORT");
  command
      ->add_option("--prometheus", flags->prometheus,
                   "a Prometheus that scrapes them all: sums over each replica's units")
      ->type_name("URL");
  command->add_option("--config", flags->config, "the servers' YAML file, with --prometheus");
  command->add_option("--set", flags->overrides, "path=value over the file; may be repeated")
      ->take_all()
      ->type_name("PATH=VALUE");
  command->add_flag("--units-stay", flags->units_stay,
                    "with --prometheus: no unit is ever served by two replicas (session affinity)");
  command->add_option("--revision", flags->revision, "of the configuration (unset: the newest)");
  command->add_flag("--json", flags->json, "the report as JSON");
  command->add_option("--html", flags->html, "write a page with plots to this file")
      ->type_name("FILE");
  command->footer(
      "Of one server: penstock-cli report.\n\nExamples:\n"
      "  ssh -fNL 50061:/run/penstock/admin.sock replica-1; ssh -fNL "
      "50062:/run/penstock/admin.sock replica-2\n"
      "  penstock report mlp-vs-linear --server 127.0.0.1:50061 --server 127.0.0.1:50062\n"
      "  penstock report mlp-vs-linear --prometheus http://127.0.0.1:9090 --config penstock.yaml");
  command->callback([flags, exit_code] { *exit_code = Report(*flags); });
}

}  // namespace penstock
