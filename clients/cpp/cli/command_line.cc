#include "clients/cpp/cli/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "clients/cpp/cli/commands.h"
#include "clients/cpp/error.h"
#include "clients/cpp/terminal/usage.h"

namespace penstock::client {
namespace {

constexpr int kFailure = 1;
constexpr int kUsage = 2;

constexpr char kExamples[] = R"(Examples:
  penstock-cli generate "The sky is blue because"
  penstock-cli generate --router control,a,b "The sky is blue because"
  penstock-cli chat --router a
  penstock-cli score --router control,a --file essay.txt
  penstock-cli compare --routers control,a --text articles.txt
  penstock-cli routers list
  penstock-cli report mlp-vs-linear
  penstock-cli COMMAND --help)";

void PrintError(const absl::Status& status, Terminal& terminal) {
  // Ctrl-C is no error of the server's, but the answer isn't whole either.
  if (absl::IsCancelled(status) && GetErrorDetail(status).reason.empty()) {
    terminal.err << "cancelled" << std::endl;
    return;
  }
  terminal.err << "error: " << DescribeError(status) << std::endl;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Client>> Invocation::Connect() const {
  Client::Options options = connection;
  options.connect_timeout = std::min(options.connect_timeout, call_options().timeout);
  return Client::Connect(std::move(options));
}

CallOptions Invocation::call_options() const {
  if (timeout_seconds <= 0) return {};
  return {.timeout = absl::Seconds(timeout_seconds)};
}

CLI::App* AddCommand(CLI::App& app, const std::string& name, const std::string& description,
                     const std::string& examples) {
  CLI::App* command = app.add_subcommand(name, description);
  command->footer("Examples:\n" + examples);
  command->fallthrough();  // --server and its kind are understood after the command too
  return command;
}

int RunCli(const std::vector<std::string>& arguments, Terminal& terminal) {
  Invocation invocation(terminal);
  CLI::App app("Talks to a running Penstock server over gRPC.", "penstock-cli");
  app.footer(kExamples);
  app.require_subcommand(1);
  app.set_version_flag("--version", "penstock-cli " PENSTOCK_VERSION);
  app.add_option("--server", invocation.connection.address, "gRPC address of the server")
      ->envname("PENSTOCK_SERVER")
      ->type_name("HOST:PORT")
      ->capture_default_str();
  app.add_option("--tenant", invocation.connection.tenant,
                 "Who asks, where the server's authentication is off")
      ->envname("PENSTOCK_TENANT");
  app.add_option("--timeout", invocation.timeout_seconds, "Deadline of each call; 0: none")
      ->type_name("SECONDS")
      ->check(NotNegative());
  app.add_flag("--json", invocation.json, "Replies as JSON, one object per line");
  AddGenerateCommand(app, invocation);
  AddChatCommand(app, invocation);
  AddScoreCommand(app, invocation);
  AddCompareCommand(app, invocation);
  AddTraceCommand(app, invocation);
  AddTokenizeCommand(app, invocation);
  AddRoutersCommand(app, invocation);
  AddExperimentsCommand(app, invocation);
  AddServerCommands(app, invocation);
  AddReportCommand(app, invocation);
  AddOutcomeCommand(app, invocation);
  AddDemoCommand(app, invocation);
  ExplainUsage(app, "error: ");

  absl::Status status;
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
    status = invocation.run();
  } catch (const CLI::ParseError& error) {
    if (app.get_subcommands().empty() && !app.remaining().empty()) {
      terminal.err << "error: there is no command " << app.remaining().front()
                   << "; --help lists them" << std::endl;
      return kUsage;
    }
    // CLI11 has an exit code per kind of error; here it is 0 for --help and 2 for the rest.
    return app.exit(error, terminal.out, terminal.err) == 0 ? 0 : kUsage;
  }
  if (status.ok()) return 0;
  // Nobody but the deadline of the call says so without a reason.
  if (absl::IsDeadlineExceeded(status) && GetErrorDetail(status).reason.empty() &&
      invocation.timeout_seconds > 0) {
    status = absl::DeadlineExceededError(absl::StrCat(
        "no whole answer within ", invocation.timeout_seconds, " s, the --timeout of a call"));
  }
  PrintError(status, terminal);
  return kFailure;
}

}  // namespace penstock::client
