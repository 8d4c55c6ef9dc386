// The program: its subcommands, and nothing else.
#include <iostream>

#include "CLI/CLI.hpp"
#include "clients/cpp/terminal/usage.h"
#include "server/commands.h"

int main(int argc, char** argv) {
  CLI::App app{"Penstock: a gRPC server for Mixture-of-Experts models with a router per request."};
  app.name("penstock");
  app.set_version_flag("--version", "penstock " PENSTOCK_VERSION);
  app.require_subcommand(1);
  app.footer(
      "`penstock COMMAND --help` shows options and examples.\n\n"
      "Example:\n  penstock serve --config penstock.yaml");
  int exit_code = penstock::kExitOk;
  penstock::AddServeCommand(&app, &exit_code);
  penstock::AddCheckConfigCommand(&app, &exit_code);
  penstock::AddAssignCommand(&app, &exit_code);
  penstock::AddRoutersCommand(&app, &exit_code);
  penstock::AddDemoModelCommand(&app, &exit_code);
  penstock::AddReportCommand(&app, &exit_code);
  penstock::AddBenchCommand(&app, &exit_code);
  penstock::client::ExplainUsage(app, "penstock: ");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0 && app.get_subcommands().empty() && !app.remaining().empty() &&
        !app.remaining().front().starts_with('-')) {
      std::cerr << "penstock: there is no command " << app.remaining().front()
                << "; --help lists them\n";
      return penstock::kExitUsage;
    }
    return app.exit(error) == 0 ? penstock::kExitOk : penstock::kExitUsage;
  }
  return exit_code;
}
