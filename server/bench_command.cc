// `penstock bench`: the engine's speed, without a network.
#include <algorithm>
#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"
#include "server/backend.h"
#include "server/base/status_macros.h"
#include "server/commands.h"
#include "server/engine_bench.h"
#include "server/model/checkpoint/json_fields.h"
#include "server/model/cuda/cuda_model.h"
#include "server/progress_bar.h"
#include "server/router_kinds.h"

namespace penstock {
namespace {

constexpr std::int64_t kMaxConfigBytes = 16 << 20;
constexpr int kMixDecodeOutput = 64;
// Unless --batch says otherwise; those above --max-batch are left out.
constexpr int kBatches[] = {1, 4, 16, 64, 256};
// Of the mixed load: a common batch, beside the largest; and how often its places are filled.
constexpr int kMixedBatch = 64;
constexpr int kMixedRounds = 4;

struct BenchFlags {
  std::string model, device = "auto", dtype = "auto", load_format = "safetensors", json;
  std::vector<int> batches, contexts = {512};
  std::vector<std::string> prefills, suites = {"decode", "prefill", "mixed", "routers"};
  int output = 64, max_batch = 256, max_context = 8192, prefill_chunk = 2048;
  bool no_telemetry = false;
  std::vector<double> shadows = {0};
};

// "448x256": sequences of 448 tokens, 256 of them.
struct PrefillShape {
  int prompt = 0, sequences = 0;
};

std::optional<PrefillShape> ParsePrefill(const std::string& text) {
  const std::vector<std::string> parts = absl::StrSplit(text, 'x');
  PrefillShape shape;
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &shape.prompt) ||
      !absl::SimpleAtoi(parts[1], &shape.sequences) || shape.prompt < 1 || shape.sequences < 1) {
    return std::nullopt;
  }
  return shape;
}

std::string CheckPrefill(const std::string& text) {
  return ParsePrefill(text) ? "" : "got " + text + ", want TOKENSxSEQUENCES, as in 448x256";
}

bool Wants(const BenchFlags& flags, const std::string& suite) {
  return std::find(flags.suites.begin(), flags.suites.end(), suite) != flags.suites.end();
}

using Routers = std::vector<std::shared_ptr<const LoadedRouter>>;

std::vector<BenchCase> Cases(const BenchFlags& flags, const std::vector<PrefillShape>& prefills,
                             const Routers& own, const Routers& all) {
  std::vector<BenchCase> cases;
  if (Wants(flags, "decode")) {
    for (const int context : flags.contexts) {
      for (const int batch : flags.batches) {
        cases.push_back({.name = absl::StrFormat("decode B=%d at %d", batch, context),
                         .kind = BenchCase::Kind::kDecode,
                         .sequences = batch,
                         .prompt = context,
                         .output = flags.output,
                         .routers = own});
      }
    }
  }
  if (Wants(flags, "prefill")) {
    for (const PrefillShape& shape : prefills) {
      cases.push_back({.name = absl::StrFormat("prefill %d x %d", shape.prompt, shape.sequences),
                       .kind = BenchCase::Kind::kPrefill,
                       .sequences = shape.sequences,
                       .prompt = shape.prompt,
                       .output = 1,
                       .routers = own});
    }
  }
  if (Wants(flags, "mixed")) {
    const int most = *std::max_element(flags.batches.begin(), flags.batches.end());
    std::set<int> batches = {std::min(kMixedBatch, most), most};
    for (const int batch : batches) {
      cases.push_back({.name = absl::StrFormat("mixed, %d at once", batch),
                       .kind = BenchCase::Kind::kMixed,
                       .sequences = batch,
                       .prompt = flags.contexts.front(),
                       .output = flags.output,
                       .requests = kMixedRounds * batch,
                       .routers = own});
    }
  }
  if (Wants(flags, "routers")) {
    // A smaller batch has no sequence of some routers.
    const int least = std::min(static_cast<int>(all.size()), flags.max_batch);
    std::set<int> batches;
    for (const int batch : flags.batches) batches.insert(std::max(batch, least));
    for (const int batch : batches) {
      const auto add = [&](const std::string& label, const Routers& routers) {
        cases.push_back({.name = absl::StrFormat("routers B=%d %s", batch, label),
                         .kind = BenchCase::Kind::kDecode,
                         .sequences = batch,
                         .prompt = flags.contexts.front(),
                         .output = std::max(kMixDecodeOutput, flags.output),
                         .routers = routers});
      };
      for (const std::shared_ptr<const LoadedRouter>& router : all) add(router->name, {router});
      add("all in turn", all);
    }
  }
  return cases;
}

// Each case once for every share of steps with shadow routing.
std::vector<BenchCase> WithShadows(const BenchFlags& flags, const std::vector<BenchCase>& cases,
                                   const Routers& all) {
  std::vector<BenchCase> shadowed;
  for (const BenchCase& bench_case : cases) {
    for (const double share : flags.shadows) {
      BenchCase& added = shadowed.emplace_back(bench_case);
      added.shadows = all;
      added.shadow_share = share;
      if (share > 0) absl::StrAppendFormat(&added.name, ", shadow %g", share);
    }
  }
  return shadowed;
}

std::string TableLine(const BenchRow& row) {
  std::string line = absl::StrFormat("%-32s %10.0f %10.3f %6d", row.measured.name,
                                     row.tokens_per_second, 1e3 * row.step_seconds, row.steps);
  if (row.bytes > 0) {
    absl::StrAppendFormat(&line, " %8.1f %8.2f", row.experts_per_layer, 1e-9 * row.bytes);
  }
  if (row.floor_seconds > 0) {
    absl::StrAppendFormat(&line, " %9.3f %6.1f %%", 1e3 * row.floor_seconds, 100 * row.fraction);
  }
  if (row.shadowed_steps > 0) {
    const double others = row.mean_step_seconds * row.steps - row.shadow_seconds;
    absl::StrAppendFormat(
        &line, "\n  shadow routing in %d of %d steps: %.3f ms each, %.2f %% of the rest",
        row.shadowed_steps, row.steps, 1e3 * row.shadow_seconds / row.shadowed_steps,
        100 * row.shadow_seconds / others);
  }
  return line;
}

nlohmann::json ToJson(const BenchRow& row) {
  nlohmann::json routers = nlohmann::json::array();
  for (const std::shared_ptr<const LoadedRouter>& router : row.measured.routers)
    routers.push_back(router->name);
  nlohmann::json json = {{"name", row.measured.name},
                         {"sequences", row.measured.sequences},
                         {"tokens", row.measured.prompt},
                         {"output", row.measured.output},
                         {"routers", routers},
                         {"steps", row.steps},
                         {"step_seconds", row.step_seconds},
                         {"tokens_per_second", row.tokens_per_second}};
  if (row.bytes > 0) {
    json["experts_per_layer"] = row.experts_per_layer;
    json["bytes"] = row.bytes;
  }
  if (row.floor_seconds > 0) {
    json["floor_seconds"] = row.floor_seconds;
    json["fraction_of_floor"] = row.fraction;
  }
  if (row.mean_step_seconds > 0) json["mean_step_seconds"] = row.mean_step_seconds;
  if (row.measured.shadow_share > 0) {
    json["shadow_share"] = row.measured.shadow_share;
    json["shadowed_steps"] = row.shadowed_steps;
    json["shadow_seconds"] = row.shadow_seconds;
  }
  return json;
}

absl::StatusOr<Backend> LoadModel(const BenchFlags& flags, ProgressBar& bar) {
  BackendOptions options;
  options.model_path = flags.model;
  options.device = flags.device;
  options.dtype = flags.dtype;
  options.dummy_weights = flags.load_format == "dummy";
  options.text = false;
  options.max_batch = flags.max_batch;
  options.max_context = flags.max_context;
  options.prefill_chunk = flags.prefill_chunk;
  options.telemetry = !flags.no_telemetry;
  options.progress = [&bar](std::int64_t done, std::int64_t total) { bar.Update(done, total); };
  return LoadBackend(options);
}

// Before anything is measured: a case may take minutes.
absl::Status CheckCases(const std::vector<BenchCase>& cases, const EngineBench& bench) {
  const int most = bench.spec().max_context;
  for (BenchCase bench_case : cases) {
    if (bench_case.kind == BenchCase::Kind::kDecode) {
      const int fitting = bench.Fitting(bench_case.prompt + bench_case.output);
      bench_case.sequences = std::clamp(fitting, 1, bench_case.sequences);
    }
    if (const std::int64_t got = bench.Positions(bench_case); got > most) {
      return absl::InvalidArgumentError(
          absl::StrCat(bench_case.name, ": a sequence has ", got, " positions, want at most ", most,
                       ": fewer tokens, or a larger --max-context where the model has one"));
    }
  }
  return absl::OkStatus();
}

absl::Status Measure(const BenchFlags& flags) {
  // Said before hours of measuring; what the file has stays until there is something new.
  if (!flags.json.empty() && !std::ofstream(flags.json, std::ios::app)) {
    return absl::UnavailableError(absl::StrCat("--json: cannot write ", flags.json));
  }
  std::vector<PrefillShape> prefills;
  for (const std::string& text : flags.prefills) prefills.push_back(ParsePrefill(text).value());
  const std::string file = flags.model + "/config.json";
  PENSTOCK_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(file, kMaxConfigBytes));
  PENSTOCK_ASSIGN_OR_RETURN(const ModelConfig config, ParseModelConfig(text, file));
  // While the memory is still free.
  const absl::StatusOr<double> copy =
      CudaDeviceStatus().ok() ? MeasureCopyBandwidth() : CudaDeviceStatus();
  const auto start = std::chrono::steady_clock::now();
  auto bar = std::make_unique<ProgressBar>("loading");
  PENSTOCK_ASSIGN_OR_RETURN(Backend backend, LoadModel(flags, *bar));
  bar.reset();
  const double ready =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const bool on_gpu = backend.model->spec().backend == "cuda";

  const Routers own = {backend.own_router};
  Routers all = own;
  for (const std::string& kind : RouterKindNames()) {
    if (kind == backend.own_router->name) continue;
    if (!Wants(flags, "routers") && flags.shadows == std::vector<double>{0}) continue;
    PENSTOCK_ASSIGN_OR_RETURN(LoadedRouter router, backend.make_untrained(kind));
    all.push_back(std::make_shared<const LoadedRouter>(std::move(router)));
  }
  PENSTOCK_ASSIGN_OR_RETURN(
      const std::unique_ptr<EngineBench> bench,
      EngineBench::Create(std::move(backend.model), config,
                          {.max_batch = flags.max_batch, .prefill_chunk = flags.prefill_chunk}));
  std::vector<BenchCase> cases = WithShadows(flags, Cases(flags, prefills, own, all), all);
  PENSTOCK_RETURN_IF_ERROR(CheckCases(cases, *bench));
  const ModelSpec& spec = bench->spec();
  nlohmann::json report = {{"model", spec.name},
                           {"backend", spec.backend},
                           {"dtype", spec.dtype},
                           {"load_format", flags.load_format},
                           {"telemetry", !flags.no_telemetry},
                           {"ready_seconds", ready},
                           {"kv_tokens", spec.num_blocks * spec.block_tokens}};
  std::cout << absl::StrFormat(
      "%s in %s on %s, %s weights, ready in %.1f s, %d tokens of KV cache\n", spec.name, spec.dtype,
      spec.backend, flags.load_format, ready, spec.num_blocks * spec.block_tokens);
  if (on_gpu) {
    report["device"] = CudaDeviceName();
    PENSTOCK_RETURN_IF_ERROR(copy.status());
    report["copy_bytes_per_second"] = *copy;
    std::cout << absl::StrFormat("%s, device copy %.2f TB/s\n", CudaDeviceName(), 1e-12 * *copy);
  }
  std::cout << absl::StrFormat("%-32s %10s %10s %6s %8s %8s", "", "tok/s", "ms a step", "steps",
                               "experts", "GB")
            << (on_gpu ? absl::StrFormat(" %9s %8s", "floor ms", "of floor") : "") << std::endl;
  for (BenchCase& bench_case : cases) {
    const int fitting = bench->Fitting(bench_case.prompt + bench_case.output);
    if (bench_case.kind == BenchCase::Kind::kDecode && fitting < bench_case.sequences) {
      std::cout << absl::StrFormat("%-32s as many as fit the KV cache: %d\n", bench_case.name,
                                   fitting);
      if (fitting == 0) continue;
      bench_case.sequences = fitting;
    }
    PENSTOCK_ASSIGN_OR_RETURN(const BenchRow row, bench->Run(bench_case));
    std::cout << TableLine(row) << std::endl;
    report["rows"].push_back(ToJson(row));
  }
  if (flags.json.empty()) return absl::OkStatus();
  std::ofstream out(flags.json);
  out << report.dump(2) << "\n";
  out.flush();
  return out ? absl::OkStatus()
             : absl::InternalError(absl::StrCat("--json: cannot write ", flags.json));
}

int Run(BenchFlags flags) {
  if (flags.batches.empty()) {
    std::copy_if(std::begin(kBatches), std::end(kBatches), std::back_inserter(flags.batches),
                 [&flags](int batch) { return batch <= flags.max_batch; });
  }
  for (const int batch : flags.batches) {
    if (batch <= flags.max_batch) continue;
    std::cerr << "penstock bench: --batch: got " << batch << ", want at most " << flags.max_batch
              << ", which is --max-batch\n";
    return kExitUsage;
  }
  const absl::Status status = Measure(flags);
  if (status.ok()) return kExitOk;
  std::cerr << "penstock bench: " << status.message() << "\n";
  return kExitFailure;
}

}  // namespace

void AddBenchCommand(CLI::App* app, int* exit_code) {
  CLI::App* command = app->add_subcommand("bench", "the engine's speed, without a network");
  const auto flags = std::make_shared<BenchFlags>();
  flags->prefills = {"448x256", "2048x8", "8192x2"};
  command
      ->add_option("MODEL", flags->model,
                   "folder of a checkpoint; with --load-format dummy its config.json is enough")
      ->required();
  command->add_option("--device", flags->device, "where the model runs; auto: cuda if it can")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  command->add_option("--dtype", flags->dtype, "of weights and activations; auto: the checkpoint's")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16", "float16"}))
      ->capture_default_str();
  command
      ->add_option("--load-format", flags->load_format,
                   "dummy: seeded random weights, made on the GPU")
      ->check(CLI::IsMember({"safetensors", "dummy"}))
      ->capture_default_str();
  command->add_option("--suite", flags->suites, "what to measure")
      ->delimiter(',')
      ->check(CLI::IsMember({"decode", "prefill", "mixed", "routers"}))
      ->capture_default_str();
  command->add_option("--batch", flags->batches, "sequences that decode at once")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096))
      ->default_str(absl::StrCat("[", absl::StrJoin(kBatches, ","), "]"));
  command->add_option("--context", flags->contexts, "positions that a decode step reads")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--prefill", flags->prefills, "prompts of so many tokens, so many at once")
      ->delimiter(',')
      ->type_name("TOKENSxSEQUENCES")
      ->check(CheckPrefill)
      ->capture_default_str();
  command->add_option("--output", flags->output, "tokens of an answer")
      ->check(CLI::Range(16, 4096))
      ->capture_default_str();
  command->add_option("--max-batch", flags->max_batch, "as engine.max_batch")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_option("--max-context", flags->max_context, "as engine.max_context")
      ->check(CLI::Range(16, 1 << 20))
      ->capture_default_str();
  command->add_option("--prefill-chunk", flags->prefill_chunk, "as engine.prefill_chunk")
      ->check(CLI::Range(16, 65536))
      ->capture_default_str();
  command->add_flag("--no-telemetry", flags->no_telemetry,
                    "on a GPU: routing decisions are not counted");
  command
      ->add_option("--shadow", flags->shadows,
                   "every case once for each share of steps that ask a router of every kind about "
                   "their rows, too")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command->add_option("--json", flags->json, "writes the figures to this file, too");
  command->footer(
      "On a GPU, the floor is what a decode step must read at 3.12 TB/s, with the experts that it "
      "touched as "
      "counted.\n\n"
      "Examples:\n"
      "  penstock bench /models/qwen --load-format dummy --json bench.json\n"
      "  penstock bench build/demo-model --device cpu --suite decode --batch 1,4\n"
      "  penstock bench /models/qwen --load-format dummy --suite decode --output 1024 --shadow "
      "0.01");
  command->callback([flags, exit_code] { *exit_code = Run(*flags); });
}

}  // namespace penstock
