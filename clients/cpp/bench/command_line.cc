#include "clients/cpp/bench/command_line.h"

#include <CLI/CLI.hpp>
#include <fstream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cpp/bench/report.h"
#include "clients/cpp/client.h"
#include "clients/cpp/error.h"
#include "clients/cpp/terminal/interrupts.h"
#include "clients/cpp/terminal/usage.h"

namespace penstock::client {
namespace {

constexpr char kExamples[] = R"(Examples:
  penstock-bench --concurrency 32 --requests 512
  penstock-bench --rate 8 --duration 60 --routers control=1,a=1,b=2
  penstock-bench --tenant acme --concurrency 8 --requests 4096 --users 500
  penstock-bench --concurrency 500 --requests 2000 --prompt-tokens 32-256 --output-tokens 16-128 --connections 4
  penstock-bench --concurrency 8 --requests 64 --prompt-file prompts.txt --json run.json

Closed loop (--concurrency): so many requests are in flight at any time. Open loop (--rate): requests come at random
times whatever the server does, and latencies count from when each should have been sent.)";

struct BenchFlags {
  Client::Options connection;
  int connections = 1;
  LoadOptions load;
  double duration_seconds = 0, timeout_seconds = 0;
  std::string routers, prompt_tokens = "128", output_tokens = "64", prompt_file, json_file;
  bool stop_at_eos = false, allow_errors = false;
  double temperature = 0;
  std::int64_t warmup = 0;
  WorkloadOptions workload;
};

void AddFlags(CLI::App& app, BenchFlags& flags) {
  app.footer(kExamples);
  app.set_version_flag("--version", "penstock-bench " PENSTOCK_VERSION);
  app.add_option("--server", flags.connection.address, "gRPC address of the server")
      ->envname("PENSTOCK_SERVER")
      ->type_name("HOST:PORT")
      ->capture_default_str();
  app.add_option("--tenant", flags.connection.tenant, "Who asks")->envname("PENSTOCK_TENANT");
  app.add_option("--connections", flags.connections, "TCP connections, used in turn")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();

  CLI::App* loop = app.add_option_group("Load", "One of:");
  loop->add_option("-c,--concurrency", flags.load.concurrency, "Closed loop: requests in flight")
      ->check(CLI::Range(1, 100000));
  loop->add_option("-r,--rate", flags.load.rate_per_second,
                   "Open loop: requests per second, Poisson")
      ->check(CLI::Range(1e-3, 1e6));
  loop->require_option(1);
  app.add_option("-n,--requests", flags.load.requests, "Requests to send")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{100'000'000}));
  app.add_option("-d,--duration", flags.duration_seconds, "Seconds to send for")
      ->check(AboveZero());
  app.add_option("--warmup", flags.warmup, "Requests sent before, not counted")
      ->check(NotNegative());
  app.add_option("--timeout", flags.timeout_seconds, "Deadline of each request in seconds; 0: none")
      ->check(NotNegative());
  app.add_option("--seed", flags.load.seed, "Of prompts, lengths and arrivals")
      ->capture_default_str();

  app.add_option("--routers", flags.routers, "Mix, e.g. control=1,a=2 (unset: as assigned)");
  app.add_option("--users", flags.workload.users,
                 "Users that requests are of, drawn alike: for experiments by user (unset: none)")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{100'000'000}));
  CLI::Option* prompt_tokens =
      app.add_option("--prompt-tokens", flags.prompt_tokens,
                     "Length of prompts of random tokens: N or FIRST-LAST, uniform")
          ->capture_default_str();
  app.add_option("--output-tokens", flags.output_tokens, "Length of answers: N or FIRST-LAST")
      ->capture_default_str();
  app.add_option("--prompt-file", flags.prompt_file, "Prompts, one a line, used in turn")
      ->check(CLI::ExistingFile)
      ->excludes(prompt_tokens);
  app.add_flag("--stop-at-eos", flags.stop_at_eos, "Let the model end answers early");
  app.add_option("--temperature", flags.temperature, "0 is greedy")->capture_default_str();

  app.add_option("--json", flags.json_file, "Write the report here; -: to standard output");
  app.add_flag("--allow-errors", flags.allow_errors, "Failed requests don't make the exit code 1");
}

template <typename T>
T OrUsageError(const std::string& flag, absl::StatusOr<T> value) {
  if (!value.ok()) throw CLI::ValidationError(flag, std::string(value.status().message()));
  return *std::move(value);
}

std::vector<std::string> ReadPrompts(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> prompts;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) prompts.push_back(line);
  }
  if (prompts.empty())
    throw CLI::ValidationError("--prompt-file", path + ": got no prompt, want one a line");
  return prompts;
}

// What CLI11 can't check by itself. Throws CLI::ValidationError.
void Resolve(BenchFlags& flags) {
  if (!flags.load.requests && flags.duration_seconds == 0) {
    throw CLI::ValidationError("--requests or --duration", "one of them is required");
  }
  if (flags.duration_seconds > 0) flags.load.duration = absl::Seconds(flags.duration_seconds);
  if (flags.timeout_seconds > 0) {
    flags.load.request_timeout = absl::Seconds(flags.timeout_seconds);
  }
  WorkloadOptions& workload = flags.workload;
  workload.mix = OrUsageError("--routers", RouterMix::Parse(flags.routers));
  workload.prompt_tokens = OrUsageError("--prompt-tokens", TokenLength::Parse(flags.prompt_tokens));
  workload.output_tokens = OrUsageError("--output-tokens", TokenLength::Parse(flags.output_tokens));
  if (!flags.prompt_file.empty()) workload.prompts = ReadPrompts(flags.prompt_file);
  workload.ignore_eos = !flags.stop_at_eos;
  workload.temperature = flags.temperature;
  workload.seed = flags.load.seed;
}

// A bar on standard error that is drawn over itself; nothing where that is no terminal.
class ProgressBar {
 public:
  ProgressBar(Terminal& terminal, const LoadOptions& load) : terminal_(terminal), load_(load) {}

  void Show(const LoadProgress& progress) {
    if (!terminal_.err_is_terminal) return;
    constexpr int kWidth = 30;
    const double elapsed = absl::ToDoubleSeconds(progress.elapsed);
    double part = 0;
    if (load_.requests) part = static_cast<double>(progress.ended) / *load_.requests;
    if (load_.duration) {
      part = std::max(part, std::min(1.0, elapsed / absl::ToDoubleSeconds(*load_.duration)));
    }
    std::string bar;
    for (int i = 0; i < kWidth; ++i) bar += i < part * kWidth ? "█" : "░";
    terminal_.err << absl::StrFormat(
        "\r\x1b[K%s %d ended, %d in flight, %d failed, %.0f tok/s", bar, progress.ended,
        progress.sent - progress.ended, progress.failed,
        elapsed > 0 ? static_cast<double>(progress.tokens) / elapsed : 0);
    terminal_.err.flush();
  }
  void Clear() {
    if (terminal_.err_is_terminal) terminal_.err << "\r\x1b[K" << std::flush;
  }

 private:
  Terminal& terminal_;
  const LoadOptions& load_;
};

LoadResult RunLoad(const std::vector<Client*>& clients, const LoadOptions& load, Workload& workload,
                   Terminal& terminal) {
  LoadGenerator generator(clients, load);
  ProgressBar bar(terminal, load);
  const InterruptScope interrupts([&generator] { generator.Cancel(); });
  LoadResult result =
      generator.Run(workload, [&bar](const LoadProgress& progress) { bar.Show(progress); });
  bar.Clear();
  return result;
}

absl::Status CannotWrite(const std::string& path) {
  return absl::UnavailableError(absl::StrCat("--json: cannot write ", path));
}

absl::Status WriteReport(const std::string& path, const std::string& json, Terminal& terminal) {
  if (path == "-") {
    terminal.out << json << std::flush;
    return absl::OkStatus();
  }
  std::ofstream file(path);
  file << json;
  file.close();
  return file ? absl::OkStatus() : CannotWrite(path);
}

// What the first of them said, with its reason and field, beside how many there are.
absl::Status Failed(const LoadReport& report) {
  absl::Status status(report.first_error.code(),
                      absl::StrCat(report.all.failed, " of ", report.all.requests,
                                   " requests failed; the first: ", report.first_error.message()));
  report.first_error.ForEachPayload([&status](absl::string_view type, const absl::Cord& payload) {
    status.SetPayload(type, payload);
  });
  return status;
}

absl::Status Run(const BenchFlags& flags, Terminal& terminal) {
  // Said before any load; what the file has stays until there is something new.
  if (!flags.json_file.empty() && flags.json_file != "-" &&
      !std::ofstream(flags.json_file, std::ios::app)) {
    return CannotWrite(flags.json_file);
  }
  std::vector<std::unique_ptr<Client>> owned;
  std::vector<Client*> clients;
  for (int i = 0; i < flags.connections; ++i) {
    auto client = Client::Connect(flags.connection);
    if (!client.ok()) return client.status();
    clients.push_back(client->get());
    owned.push_back(*std::move(client));
  }
  const auto model = clients.front()->GetModelInfo();
  if (!model.ok()) return model.status();

  Workload workload(flags.workload, *model);
  if (flags.warmup > 0) {
    LoadOptions load = flags.load;
    load.rate_per_second.reset();
    load.duration.reset();
    load.requests = flags.warmup;
    load.concurrency =
        static_cast<int>(std::min<std::int64_t>(flags.warmup, flags.load.concurrency.value_or(8)));
    if (RunLoad(clients, load, workload, terminal).interrupted) {
      return absl::CancelledError("interrupted during the warm-up");
    }
  }
  const LoadReport report = MakeReport(RunLoad(clients, flags.load, workload, terminal));
  if (flags.json_file != "-") terminal.out << ReportTable(report) << std::flush;
  if (!flags.json_file.empty()) {
    const RunDescription run = {
        .server = flags.connection.address,
        .model = model->name(),
        .backend = model->backend(),
        .dtype = model->dtype(),
        .server_version = model->server_version(),
        .load = flags.load,
        .routers = flags.routers,
        .prompt_tokens = flags.prompt_file.empty() ? flags.prompt_tokens : flags.prompt_file,
        .output_tokens = flags.output_tokens,
        .connections = flags.connections,
        .warmup = flags.warmup};
    absl::Status status = WriteReport(flags.json_file, ReportJson(run, report), terminal);
    if (!status.ok()) return status;
  }
  if (report.interrupted) return absl::CancelledError("interrupted; what runs was cancelled");
  if (report.all.failed > 0 && !flags.allow_errors) {
    return Failed(report);
  }
  return absl::OkStatus();
}

}  // namespace

int RunBench(const std::vector<std::string>& arguments, Terminal& terminal) {
  BenchFlags flags;
  CLI::App app("Sends load to a Penstock server over gRPC and measures its latencies.",
               "penstock-bench");
  AddFlags(app, flags);
  ExplainUsage(app, "error: ");
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
    Resolve(flags);
  } catch (const CLI::ParseError& error) {
    constexpr int kUsage = 2;
    return app.exit(error, terminal.out, terminal.err) == 0 ? 0 : kUsage;
  }
  const absl::Status status = Run(flags, terminal);
  if (status.ok()) return 0;
  terminal.err << "error: " << DescribeError(status) << std::endl;
  return 1;
}

}  // namespace penstock::client
