// `penstock demo-model`: checkpoints written where they are needed.
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>

#include "clients/cpp/terminal/usage.h"
#include "server/backend.h"
#include "server/commands.h"
#include "server/init_router.h"
#include "server/model/checkpoint/demo_model.h"
#include "server/model/checkpoint/random_checkpoint.h"
#include "server/progress_bar.h"
#include "server/router_kinds.h"

namespace penstock {
namespace {

struct DemoModelFlags {
  std::string folder, gguf, config, layout = "per-expert";
  bool random = false;
  std::uint64_t seed = kDemoSeed;
  std::int64_t max_shard_bytes = 0;
};

int Fail(const absl::Status& status) {
  std::cerr << "penstock demo-model: " << status.message() << "\n";
  return kExitFailure;
}

int Usage(const std::string& message) {
  std::cerr << "penstock demo-model: " << message << "\n";
  return kExitUsage;
}

// One untrained package of every kind beside the checkpoint; the checkpoint's own gates need none.
absl::Status WriteRouters(const DemoModelFlags& flags) {
  const auto checkpoint = Checkpoint::Open(flags.folder);
  if (!checkpoint.ok()) return checkpoint.status();
  const std::filesystem::path root = std::filesystem::path(flags.folder) / "routers";
  std::error_code error;
  std::filesystem::create_directory(root, error);
  if (error) return absl::InternalError(root.string() + ": " + error.message());
  for (const std::string& kind : RouterKindNames()) {
    if (kind == kCheckpointRouter) continue;
    InitRouterOptions options;
    options.kind = kind;
    options.seed = flags.seed;
    options.folder = (root / kind).string();
    const auto written = WriteUntrainedRouter(**checkpoint, options);
    if (!written.ok()) return written.status();
    std::cout << "router " << kind << ": " << options.folder << "\n";
  }
  return absl::OkStatus();
}

int WriteDemo(const DemoModelFlags& flags) {
  {
    ProgressBar bar("converting");
    const absl::Status status =
        WriteDemoModel(flags.gguf, flags.folder,
                       [&bar](std::int64_t done, std::int64_t total) { bar.Update(done, total); });
    if (!status.ok()) return Fail(status);
  }
  std::cout << "model: " << flags.folder << "\n";
  const absl::Status status = WriteRouters(flags);
  return status.ok() ? kExitOk : Fail(status);
}

int WriteRandom(const DemoModelFlags& flags) {
  RandomCheckpointOptions options;
  options.layout = flags.layout == "fused" ? ExpertLayout::kFused : ExpertLayout::kPerExpert;
  options.max_shard_bytes = flags.max_shard_bytes;
  ProgressBar bar("writing");
  const absl::Status status = WriteRandomCheckpoint(
      flags.config, flags.seed, flags.folder, options,
      [&bar](std::int64_t done, std::int64_t total) { bar.Update(done, total); });
  if (!status.ok()) return Fail(status);
  std::cout << "model: " << flags.folder << "\n";
  return kExitOk;
}

int Run(const DemoModelFlags& flags) {
  if (flags.random == !flags.gguf.empty())
    return Usage("want either --gguf FILE or --random --config FILE");
  if (flags.random && flags.config.empty())
    return Usage("--random needs --config FILE, a config.json");
  if (!flags.random && !flags.config.empty()) return Usage("--config goes with --random");
  return flags.random ? WriteRandom(flags) : WriteDemo(flags);
}

}  // namespace

void AddDemoModelCommand(CLI::App* app, int* exit_code) {
  CLI::App* command = app->add_subcommand(
      "demo-model", "write a small checkpoint with its routers, or a random one");
  const auto flags = std::make_shared<DemoModelFlags>();
  command->add_option("DIR", flags->folder, "new or empty folder")->required();
  command->add_option("--gguf", flags->gguf,
                      "SmolLM2-135M-Instruct as GGUF, of which the model is made");
  command->add_flag("--random", flags->random, "seeded random weights of any size instead");
  command->add_option("--config", flags->config,
                      "with --random: the config.json whose shape the weights have");
  command->add_option("--seed", flags->seed, "of random gates, routers and weights")
      ->capture_default_str();
  command->add_option("--layout", flags->layout, "with --random: of the experts' tensors")
      ->check(CLI::IsMember({"per-expert", "fused"}))
      ->capture_default_str();
  command
      ->add_option("--max-shard-bytes", flags->max_shard_bytes,
                   "with --random: of one file; 0: a single file")
      ->check(client::NotNegative())
      ->capture_default_str();
  command->footer(
      "The packages of the demo's routers go to DIR/routers/KIND.\n\n"
      "Examples:\n"
      "  penstock demo-model demo --gguf SmolLM2-135M-Instruct.Q4_1.gguf\n"
      "  penstock demo-model big --random --config config.json --seed 7");
  command->callback([flags, exit_code] { *exit_code = Run(*flags); });
}

}  // namespace penstock
