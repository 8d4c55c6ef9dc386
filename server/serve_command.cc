// `penstock serve` and `penstock check-config`.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <iostream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "routers/package/router_catalogue.h"
#include "server/commands.h"
#include "server/config/config.h"
#include "server/penstock_server.h"

namespace penstock {
namespace {

struct ConfigFlags {
  std::string file;
  std::vector<std::string> overrides;

  void AddTo(CLI::App* command) {
    command
        ->add_option("--config", file, "the YAML file; proto/penstock/v1/config.proto describes it")
        ->required();
    command
        ->add_option("--set", overrides,
                     "path=value over the file, e.g. engine.max_batch=64; may be repeated")
        ->take_all()
        ->type_name("PATH=VALUE");
  }
};

// SIGUSR1 tells the waiting loop that the drain is over.
sigset_t HandledSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGUSR1}) sigaddset(&signals, signal);
  return signals;
}

// SIGHUP reloads; SIGTERM and SIGINT drain; a second one ends at once.
int WaitForTheEnd(PenstockServer* server, const sigset_t& signals) {
  std::thread drain;
  while (true) {
    int signal = 0;
    if (sigwait(&signals, &signal) != 0) continue;
    if (signal == SIGHUP) {
      if (!drain.joinable()) server->Reload();
    } else if (signal == SIGUSR1) {
      if (drain.joinable()) break;
    } else if (!drain.joinable()) {
      drain = std::thread([server] {
        server->Shutdown(server->drain_timeout());
        kill(getpid(), SIGUSR1);
      });
    } else {
      server->Shutdown(absl::ZeroDuration());
    }
  }
  drain.join();
  return server->device_lost() ? kExitFailure : kExitOk;
}

int Serve(const ConfigFlags& flags) {
  // Blocked before any thread starts, so that all of them inherit it and the loop below alone takes
  // them.
  const sigset_t signals = HandledSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  auto server = PenstockServer::Start(flags.file, flags.overrides);
  if (!server.ok()) {
    std::cerr << "penstock serve: " << server.status().message() << "\n";
    return kExitFailure;
  }
  return WaitForTheEnd(server->get(), signals);
}

int Check(const ConfigFlags& flags) {
  const ConfigCheck check = CheckConfig(
      flags.file,
      {.overrides = flags.overrides, .built_in_routers = {std::string(kCheckpointRouter)}});
  (check.valid ? std::cout : std::cerr) << check.text;
  return check.valid ? kExitOk : kExitFailure;
}

}  // namespace

void AddServeCommand(CLI::App* app, int* exit_code) {
  CLI::App* command = app->add_subcommand("serve", "run the server");
  const auto flags = std::make_shared<ConfigFlags>();
  flags->AddTo(command);
  command->footer(
      "SIGHUP reloads the file; SIGTERM drains, a second one ends at once.\n\n"
      "Examples:\n"
      "  penstock serve --config penstock.yaml\n"
      "  penstock serve --config penstock.yaml --set listen.grpc=127.0.0.1:0 --set "
      "engine.max_batch=32");
  command->callback([flags, exit_code] { *exit_code = Serve(*flags); });
}

void AddCheckConfigCommand(CLI::App* app, int* exit_code) {
  CLI::App* command =
      app->add_subcommand("check-config", "print every violation of a configuration file");
  const auto flags = std::make_shared<ConfigFlags>();
  flags->AddTo(command);
  command->footer(
      "Exits 1 if there is any.\n\nExample:\n  penstock check-config --config penstock.yaml");
  command->callback([flags, exit_code] { *exit_code = Check(*flags); });
}

}  // namespace penstock
