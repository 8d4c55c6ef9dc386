// The commands of penstock-cli: each adds itself to the command line, and sets `run` when it was
// chosen.
#pragma once

#include <CLI/App.hpp>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "clients/cpp/client.h"
#include "clients/cpp/terminal/terminal.h"

namespace penstock::client {

struct Invocation {
  explicit Invocation(Terminal& terminal) : terminal(terminal) {}

  // A client as --server and --tenant say.
  absl::StatusOr<std::unique_ptr<Client>> Connect() const;
  // As --timeout says.
  CallOptions call_options() const;

  Terminal& terminal;
  Client::Options connection;
  double timeout_seconds = 0;  // 0: none
  bool json = false;           // replies as JSON, one object per line

  // Set by the chosen command; throws CLI::ValidationError before any call for what only it can see
  // is wrong.
  std::function<absl::Status()> run;
};

void AddGenerateCommand(CLI::App& app, Invocation& invocation);
void AddChatCommand(CLI::App& app, Invocation& invocation);
void AddScoreCommand(CLI::App& app, Invocation& invocation);
void AddCompareCommand(CLI::App& app, Invocation& invocation);
void AddTraceCommand(CLI::App& app, Invocation& invocation);
void AddTokenizeCommand(CLI::App& app, Invocation& invocation);
void AddRoutersCommand(CLI::App& app, Invocation& invocation);
void AddExperimentsCommand(CLI::App& app, Invocation& invocation);
void AddServerCommands(CLI::App& app, Invocation& invocation);  // info, load, drain
void AddReportCommand(CLI::App& app, Invocation& invocation);
void AddOutcomeCommand(CLI::App& app, Invocation& invocation);
void AddDemoCommand(CLI::App& app, Invocation& invocation);

// A command with its examples at the end of --help.
CLI::App* AddCommand(CLI::App& app, const std::string& name, const std::string& description,
                     const std::string& examples);

}  // namespace penstock::client
