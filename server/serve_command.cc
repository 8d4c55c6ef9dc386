// `penstock serve` and `penstock check-config`.
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "routers/package/router_catalogue.h"
#include "server/base/clock.h"
#include "server/commands.h"
#include "server/config/config.h"
#include "server/config/file_watch.h"
#include "server/config/reload.h"
#include "server/penstock_server.h"
#include "server/policy_of_config.h"

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
int WaitForTheEnd(PenstockServer* server, FileWatch* watch, const sigset_t& signals) {
  std::thread drain;
  while (true) {
    int signal = 0;
    if (sigwait(&signals, &signal) != 0) continue;
    if (signal == SIGHUP) {
      if (drain.joinable()) continue;
      watch->MarkSeen();
      server->Reload();
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

// --peers, as an override of the file.
std::string PeersOverride(const std::vector<std::string>& peers) {
  const auto quoted = [](std::string* out, const std::string& peer) {
    absl::StrAppend(out, "\"", peer, "\"");
  };
  return absl::StrCat("experiments.peers.addresses=[", absl::StrJoin(peers, ", ", quoted), "]");
}

// Ends the process at SIGTERM or SIGINT while there is nothing to drain yet: loading may take
// minutes.
class LoadInterrupt {
 public:
  explicit LoadInterrupt(const sigset_t& handled) {
    thread_ = std::thread([waited = Waited(handled)] {
      int signal = 0;
      while (sigwait(&waited, &signal) != 0) {
      }
      if (signal == SIGUSR1) return;
      std::cerr << "penstock serve: ended by a signal before it served" << std::endl;
      _exit(kExitFailure);
    });
  }
  ~LoadInterrupt() {
    pthread_kill(thread_.native_handle(), SIGUSR1);
    thread_.join();
  }

 private:
  // A reload waits until there is something to reload.
  static sigset_t Waited(sigset_t handled) {
    sigdelset(&handled, SIGHUP);
    return handled;
  }

  std::thread thread_;
};

int Serve(const ConfigFlags& flags) {
  // Blocked before any thread starts, so that all of them inherit it and the loop below alone takes
  // them.
  const sigset_t signals = HandledSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  // Made before the file is read: a change from then on is one. It reloads by the signal, so that
  // reloads come one after the other.
  FileWatch watch({.path = flags.file, .on_change = [] { kill(getpid(), SIGHUP); }});
  auto loading = std::make_unique<LoadInterrupt>(signals);
  auto server = PenstockServer::Start(flags.file, flags.overrides);
  loading.reset();
  if (!server.ok()) {
    std::cerr << "penstock serve: " << server.status().message() << "\n";
    return kExitFailure;
  }
  watch.Start();
  return WaitForTheEnd(server->get(), &watch, signals);
}

// By name of the experiment. Without the packages' fingerprints: those are a running server's.
std::map<std::string, std::string> RevisionsOf(const v1::ServerConfig& config) {
  Policy policy = PolicyOfConfig(config, /*model_name=*/"", /*max_context=*/0);
  return Assigner({.default_router = policy.default_router,
                   .traffic_salt = policy.traffic_salt,
                   .experiments = std::move(policy.experiments),
                   .fingerprints = {}})
      .revisions();
}

// What a server that runs `running` would do with `updated`.
void PrintReload(const v1::ServerConfig& running, const v1::ServerConfig& updated) {
  const ConfigReload reload = DiffForReload(running, updated);
  for (const ConfigChange& change : reload.changes) std::cout << change.ToString() << "\n";
  if (reload.changes.empty()) std::cout << "nothing changes\n";
  const auto before = RevisionsOf(running), after = RevisionsOf(updated);
  for (const auto& [name, revision] : after) {
    const auto old = before.find(name);
    if (old == before.end() || old->second == revision) continue;
    std::cout << "experiment " << name
              << " starts a new revision: what was measured before is not mixed with what is "
                 "measured from then on\n";
  }
}

int Check(const ConfigFlags& flags, const std::string& running_file) {
  const ConfigOptions options = {.overrides = flags.overrides,
                                 .built_in_routers = {std::string(kCheckpointRouter)}};
  const ConfigCheck check = CheckConfig(flags.file, options, Clock::Real().Now());
  (check.valid ? std::cout : std::cerr) << check.text;
  if (!check.valid) return kExitFailure;
  if (running_file.empty()) return kExitOk;
  const auto running = LoadConfig(running_file, options);
  if (!running.ok()) {
    std::cerr << "penstock check-config: --running: " << running.status().message() << "\n";
    return kExitFailure;
  }
  const auto updated = LoadConfig(flags.file, options);
  if (!updated.ok()) {
    std::cerr << updated.status().message() << "\n";
    return kExitFailure;
  }
  PrintReload(*running, *updated);
  return kExitOk;
}

}  // namespace

void AddServeCommand(CLI::App* app, int* exit_code) {
  CLI::App* command = app->add_subcommand("serve", "run the server");
  const auto flags = std::make_shared<ConfigFlags>();
  flags->AddTo(command);
  const auto peers = std::make_shared<std::vector<std::string>>();
  command
      ->add_option("--peers", *peers,
                   "other replicas' ops addresses, whose halts of arms are taken over; every "
                   "address of a name is asked (experiments.peers)")
      ->delimiter(',')
      ->type_name("HOST:PORT");
  command->footer(
      "SIGHUP reloads the file, as a change of it does within some 2 seconds; SIGTERM drains, a "
      "second one ends at once.\n\n"
      "Examples:\n"
      "  penstock serve --config penstock.yaml\n"
      "  penstock serve --config penstock.yaml --set listen.grpc=127.0.0.1:0 --set "
      "engine.max_batch=32\n"
      "  penstock serve --config penstock.yaml --peers penstock-headless:9400");
  command->callback([flags, peers, exit_code] {
    if (!peers->empty()) flags->overrides.push_back(PeersOverride(*peers));
    *exit_code = Serve(*flags);
  });
}

void AddCheckConfigCommand(CLI::App* app, int* exit_code) {
  CLI::App* command =
      app->add_subcommand("check-config", "print every violation of a configuration file");
  const auto flags = std::make_shared<ConfigFlags>();
  flags->AddTo(command);
  const auto running = std::make_shared<std::string>();
  command->add_option(
      "--running", *running,
      "the file that a server runs with: says what a reload would change, and which "
      "experiments start a new revision");
  command->footer(
      "Exits 1 if there is any. Of a valid file it says what each experiment exposes, and warns of "
      "what its author hardly wants.\n\nExamples:\n"
      "  penstock check-config --config penstock.yaml\n"
      "  penstock check-config --config new.yaml --running penstock.yaml");
  command->callback([flags, running, exit_code] { *exit_code = Check(*flags, *running); });
}

}  // namespace penstock
