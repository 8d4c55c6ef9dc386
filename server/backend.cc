#include "server/backend.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "routers/package/fingerprint.h"
#include "routers/package/router_package.h"
#include "routers/package/router_start.h"
#include "routers/router_loading.h"
#include "routers/router_registry.h"
#include "server/base/error.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/model/checkpoint/json_fields.h"
#include "server/model/checkpoint/model_tensors.h"
#include "server/model/checkpoint/random_weights.h"
#include "server/model/cuda/cuda_model.h"
#include "server/model/reference/reference_model.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

// /proc/meminfo, MemAvailable, in bytes.
std::int64_t AvailableMemory() {
  std::ifstream meminfo("/proc/meminfo");
  std::string key;
  std::int64_t kib = 0;
  for (std::string rest; meminfo >> key >> kib; std::getline(meminfo, rest)) {
    if (key == "MemAvailable:") return kib * 1024;
  }
  return std::int64_t{4} << 30;
}

absl::StatusOr<std::int64_t> BlocksOfKvCache(const BackendOptions& options,
                                             std::int64_t block_bytes, int max_context) {
  const std::int64_t blocks_of_context =
      (max_context + options.block_tokens - 1) / options.block_tokens;
  const std::int64_t wanted = blocks_of_context * options.max_batch;
  const std::int64_t bytes =
      options.kv_bytes ? *options.kv_bytes : std::min(wanted * block_bytes, AvailableMemory() / 4);
  const std::int64_t blocks = std::min(bytes / block_bytes, wanted);
  if (blocks < blocks_of_context) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "engine.kv_memory: ", bytes, " bytes hold ", blocks * options.block_tokens,
        " tokens, less than one context of ", max_context, " (", blocks_of_context * block_bytes,
        " bytes): raise it, or lower engine.max_context"));
  }
  return blocks;
}

constexpr std::int64_t kMaxConfigBytes = 16 << 20;

// The checkpoint folder's name.
std::string ServedName(const std::string& folder) {
  const fs::path path = fs::path(folder).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

at::ScalarType ScalarTypeOf(const std::string& dtype) {
  if (dtype == "bfloat16") return at::kBFloat16;
  return dtype == "float16" ? at::kHalf : at::kFloat;
}

absl::StatusOr<TextModel> LoadText(const std::string& folder, std::int64_t vocab_size,
                                   const GenerationConfig& generation) {
  TextModel text;
  const std::string file = folder + "/tokenizer.json";
  PENSTOCK_ASSIGN_OR_RETURN(text.tokenizer, Tokenizer::Load(file));
  if (text.tokenizer->VocabSize() > vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": got ", text.tokenizer->VocabSize(),
                                                   " tokens, want at most ", vocab_size,
                                                   ", the vocab_size of config.json"));
  }
  PENSTOCK_ASSIGN_OR_RETURN(ChatTemplate chat, ChatTemplate::Load(folder));
  text.chat = std::make_shared<const ChatTemplate>(std::move(chat));
  for (const std::int64_t id : generation.eos_token_ids)
    text.eos_token_ids.push_back(static_cast<TokenId>(id));
  SamplingOptions& sampling = text.default_sampling;
  sampling.temperature = generation.temperature;
  if (generation.do_sample == false) sampling.temperature = 0;
  sampling.top_p = generation.top_p;
  sampling.min_p = generation.min_p;
  sampling.top_k = generation.top_k;
  sampling.repetition_penalty = generation.repetition_penalty;
  return text;
}

// What routers are made for.
struct RouterPlace {
  RouterModel model;
  RouterOptions options;
  bool on_gpu = false;
};

absl::StatusOr<LoadedRouter> Load(const std::string& name, const std::string& path,
                                  const RouterPackage& package, const RouterPlace& place) {
  absl::StatusOr<std::shared_ptr<const Router>> made =
      MakeRouter(package, place.model, place.options);
  if (place.on_gpu && absl::IsResourceExhausted(made.status())) {
    const absl::StatusOr<CudaMemory> memory = CudaMemoryNow();
    return absl::ResourceExhaustedError(absl::StrCat(
        "router ", name, ": ", made.status().message(), "; the GPU has ",
        memory.ok() ? absl::StrCat(memory->free) : "an unknown number of",
        " bytes free: unload another router, or lower engine.kv_memory at the next start"));
  }
  PENSTOCK_RETURN_IF_ERROR(made.status());
  std::shared_ptr<const Router> router = *std::move(made);
  if (place.on_gpu) PENSTOCK_RETURN_IF_ERROR(CheckCudaRouter(*router));
  return LoadedRouter{.name = name,
                      .fingerprint = PackageFingerprint(package),
                      .path = path,
                      .loaded_at = absl::Now(),
                      .router = std::move(router)};
}

CudaModelOptions CudaOptions(const BackendOptions& options, const ModelConfig& config) {
  return {.name = ServedName(options.model_path),
          .block_tokens = options.block_tokens,
          .max_batch = options.max_batch,
          .max_step_rows = options.prefill_chunk + options.max_batch,
          .max_context = static_cast<int>(
              std::min<std::int64_t>(options.max_context, config.max_position_embeddings)),
          .kv_bytes = options.kv_bytes,
          .telemetry = options.telemetry,
          .progress = options.progress};
}

// Whether the model goes to the GPU. One log line says why it does not.
absl::StatusOr<bool> OnGpu(const BackendOptions& options, const ModelConfig& config) {
  if (options.device == "cpu") return false;
  absl::Status status = CudaDeviceStatus();
  if (status.ok()) status = CheckCudaModel(config, options.dtype, CudaOptions(options, config));
  if (status.ok()) return true;
  if (options.device == "cuda") {
    return absl::Status(status.code(),
                        absl::StrCat("model.device: got cuda, but ", status.message()));
  }
  Log(LogLevel::kInfo, "the model runs on the CPU", {{"reason", std::string(status.message())}});
  return false;
}

absl::StatusOr<std::unique_ptr<Model>> MakeReferenceModel(
    const std::shared_ptr<const Checkpoint>& checkpoint, const BackendOptions& options) {
  const std::int64_t longest =
      std::min<std::int64_t>(options.max_context, checkpoint->config().max_position_embeddings);
  ReferenceModelOptions model{.name = {},
                              .dtype = options.dtype,
                              .block_tokens = options.block_tokens,
                              .num_blocks = 1,
                              .max_context = static_cast<int>(longest)};
  PENSTOCK_ASSIGN_OR_RETURN(const std::int64_t block_bytes,
                            ReferenceKvBlockBytes(*checkpoint, model));
  PENSTOCK_ASSIGN_OR_RETURN(model.num_blocks,
                            BlocksOfKvCache(options, block_bytes, model.max_context));
  return CreateReferenceModel(checkpoint, model);
}

// Gates of a model without a checkpoint.
struct DummyGates {
  std::vector<std::vector<std::byte>> values;  // bf16 [E, d] per layer
  RouterBase base;
};

absl::StatusOr<DummyGates> MakeDummyGates(const ModelConfig& config, std::uint64_t seed) {
  DummyGates gates;
  std::vector<NamedGate> named;
  const std::vector<std::int64_t> layers = config.SparseLayers();
  gates.values.resize(layers.size());
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const TensorLayout layout{.name = LayerTensorName(layers[i], "mlp.gate.weight"),
                              .dtype = DType::kBF16,
                              .shape = {config.experts, config.hidden_size}};
    gates.values[i].resize(static_cast<std::size_t>(2 * config.experts * config.hidden_size));
    RandomWeights(seed, layout.name).Fill(ScaleOf(layout), DType::kBF16, 0, gates.values[i]);
    named.push_back(
        {layout.name, {.dtype = DType::kBF16, .shape = layout.shape, .bytes = gates.values[i]}});
    gates.base.gates.push_back(named.back().weight);
  }
  gates.base.shape = {.d = config.hidden_size,
                      .experts = config.experts,
                      .top_k = config.top_k,
                      .layers = layers,
                      .vocab_size = config.vocab_size,
                      .norm_topk_prob = config.norm_topk_prob};
  PENSTOCK_ASSIGN_OR_RETURN(gates.base.fingerprint,
                            BaseFingerprint(gates.base.shape, config.layers, named));
  return gates;
}

// The checkpoint's own gates as a router, and the loader of all others.
// `kept` keeps the values of base.gates.
absl::Status MakeRouters(const BackendOptions& options, const RouterBase& base,
                         std::shared_ptr<const void> kept, bool on_gpu, Backend& backend) {
  RouterPlace place{.model = {.shape = base.shape, .base_fingerprint = base.fingerprint},
                    .options = {.dtype = ScalarTypeOf(backend.model->spec().dtype),
                                .device = on_gpu ? at::kCUDA : at::kCPU},
                    .on_gpu = on_gpu};
  PENSTOCK_ASSIGN_OR_RETURN(const RouterPackage own,
                            CheckpointRouterPackage(place.model, base.gates));
  PENSTOCK_ASSIGN_OR_RETURN(LoadedRouter own_router,
                            Load(std::string(kCheckpointRouter), "", own, place));
  backend.own_router = std::make_shared<const LoadedRouter>(std::move(own_router));
  backend.allow_other_base = std::make_shared<std::atomic<bool>>(options.allow_other_base);
  backend.load_router = [place, root = options.routers_root, allowed = backend.allow_other_base](
                            const std::string& name,
                            const std::string& path) -> absl::StatusOr<LoadedRouter> {
    RouterPlace here = place;
    here.model.allow_other_base = *allowed;
    PENSTOCK_ASSIGN_OR_RETURN(const std::string folder, ResolvePackagePath(root, path));
    PENSTOCK_ASSIGN_OR_RETURN(
        const RouterPackage package,
        LoadRouterPackage(folder, RouterRegistry::Global().catalogue(), here.model));
    return Load(name, path, package, here);
  };
  backend.make_untrained = [place, gates = base.gates, kept = std::move(kept)](
                               const std::string& name) -> absl::StatusOr<LoadedRouter> {
    PENSTOCK_ASSIGN_OR_RETURN(const RouterKind* kind,
                              RouterRegistry::Global().catalogue().Find(name));
    RouterStart start;
    start.model = place.model;
    start.gates = gates;
    start.seed = 1;
    PENSTOCK_ASSIGN_OR_RETURN(const RouterPackage package, InitRouter(*kind, start));
    return Load(name, "", package, place);
  };
  return absl::OkStatus();
}

// Random weights need no checkpoint but its config.json.
absl::StatusOr<Backend> LoadDummy(const BackendOptions& options) {
  const std::string file = options.model_path + "/config.json";
  PENSTOCK_ASSIGN_OR_RETURN(const std::string json, ReadTextFile(file, kMaxConfigBytes));
  PENSTOCK_ASSIGN_OR_RETURN(const ModelConfig config, ParseModelConfig(json, file));
  PENSTOCK_ASSIGN_OR_RETURN(const bool on_gpu, OnGpu(options, config));
  if (!on_gpu) {
    return absl::InvalidArgumentError(
        "model.load_format: got dummy, want safetensors: dummy weights are made on a GPU "
        "(`penstock demo-model "
        "--random` writes a random checkpoint)");
  }
  Backend backend;
  if (options.text) {
    PENSTOCK_ASSIGN_OR_RETURN(backend.text, LoadText(options.model_path, config.vocab_size,
                                                     DefaultGenerationConfig(config)));
  }
  PENSTOCK_ASSIGN_OR_RETURN(backend.model,
                            CreateDummyCudaModel(config, CudaOptions(options, config)));
  PENSTOCK_ASSIGN_OR_RETURN(DummyGates made, MakeDummyGates(config, /*seed=*/0));
  const auto gates = std::make_shared<const DummyGates>(std::move(made));
  PENSTOCK_RETURN_IF_ERROR(MakeRouters(options, gates->base, gates, on_gpu, backend));
  return backend;
}

}  // namespace

absl::StatusOr<std::string> ResolvePackagePath(const std::string& root, const std::string& path) {
  if (root.empty()) {
    return MakeError(absl::StatusCode::kFailedPrecondition,
                     "routers.root is not configured: no packages can be loaded",
                     {.reason = "NO_ROUTERS_ROOT", .field = "path", .retry_after = {}});
  }
  std::error_code error;
  const fs::path base = fs::canonical(root, error);
  if (error)
    return absl::NotFoundError(absl::StrCat("routers.root: ", root, ": ", error.message()));
  const std::string wanted = "a folder inside routers.root, as a relative path";
  if (fs::path(path).is_absolute()) return InvalidField("path", path, wanted);
  const fs::path resolved = fs::canonical(base / path, error);
  if (error) return InvalidField("path", absl::StrCat(path, " (", error.message(), ")"), wanted);
  const fs::path inside = resolved.lexically_relative(base);
  if (inside.empty() || *inside.begin() == ".." || !fs::is_directory(resolved)) {
    return InvalidField("path", path, wanted);
  }
  return resolved.string();
}

absl::StatusOr<RouterBase> RouterBaseOf(const Checkpoint& checkpoint) {
  RouterBase result;
  result.shape = checkpoint.router_shape();
  const std::vector<NamedGate> gates = checkpoint.gates();
  for (const NamedGate& gate : gates) result.gates.push_back(gate.weight);
  PENSTOCK_ASSIGN_OR_RETURN(result.fingerprint,
                            BaseFingerprint(result.shape, checkpoint.config().layers, gates));
  return result;
}

absl::StatusOr<Backend> LoadBackend(const BackendOptions& options) {
  if (options.dummy_weights) {
    return LoadDummy(options);
  }
  PENSTOCK_ASSIGN_OR_RETURN(
      const std::shared_ptr<const Checkpoint> checkpoint,
      Checkpoint::Open(options.model_path, {.threads = 0, .progress = options.progress}));
  Backend backend;
  if (options.text) {
    PENSTOCK_ASSIGN_OR_RETURN(
        backend.text,
        LoadText(checkpoint->folder(), checkpoint->config().vocab_size, checkpoint->generation()));
  }
  PENSTOCK_ASSIGN_OR_RETURN(const bool on_gpu, OnGpu(options, checkpoint->config()));
  if (on_gpu) {
    PENSTOCK_ASSIGN_OR_RETURN(
        backend.model, CreateCudaModel(*checkpoint, CudaOptions(options, checkpoint->config())));
  } else {
    PENSTOCK_ASSIGN_OR_RETURN(backend.model, MakeReferenceModel(checkpoint, options));
  }
  PENSTOCK_ASSIGN_OR_RETURN(const RouterBase base, RouterBaseOf(*checkpoint));
  PENSTOCK_RETURN_IF_ERROR(MakeRouters(options, base, checkpoint, on_gpu, backend));
  return backend;
}

}  // namespace penstock
