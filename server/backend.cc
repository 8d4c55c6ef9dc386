#include "server/backend.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "routers/package/fingerprint.h"
#include "routers/package/router_package.h"
#include "routers/router_loading.h"
#include "routers/router_registry.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
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

absl::StatusOr<std::int64_t> BlocksOfKvCache(const BackendOptions& options, std::int64_t block_bytes,
                                             int max_context) {
  const std::int64_t blocks_of_context = (max_context + options.block_tokens - 1) / options.block_tokens;
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

at::ScalarType ScalarTypeOf(const std::string& dtype) {
  if (dtype == "bfloat16") return at::kBFloat16;
  return dtype == "float16" ? at::kHalf : at::kFloat;
}

absl::StatusOr<TextModel> LoadText(const Checkpoint& checkpoint) {
  TextModel text;
  const std::string file = checkpoint.folder() + "/tokenizer.json";
  PENSTOCK_ASSIGN_OR_RETURN(text.tokenizer, Tokenizer::Load(file));
  if (text.tokenizer->VocabSize() > checkpoint.config().vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": got ", text.tokenizer->VocabSize(), " tokens, want at most ",
                                                   checkpoint.config().vocab_size, ", the vocab_size of config.json"));
  }
  PENSTOCK_ASSIGN_OR_RETURN(ChatTemplate chat, ChatTemplate::Load(checkpoint.folder()));
  text.chat = std::make_shared<const ChatTemplate>(std::move(chat));
  const GenerationConfig& generation = checkpoint.generation();
  for (const std::int64_t id : generation.eos_token_ids) text.eos_token_ids.push_back(static_cast<TokenId>(id));
  SamplingOptions& sampling = text.default_sampling;
  sampling.temperature = generation.temperature;
  if (generation.do_sample == false) sampling.temperature = 0;
  sampling.top_p = generation.top_p;
  sampling.min_p = generation.min_p;
  sampling.top_k = generation.top_k;
  sampling.repetition_penalty = generation.repetition_penalty;
  return text;
}

absl::StatusOr<LoadedRouter> Load(const std::string& name, const std::string& path, const RouterPackage& package,
                                  const RouterModel& model, at::ScalarType dtype) {
  PENSTOCK_ASSIGN_OR_RETURN(std::shared_ptr<const Router> router,
                            MakeRouter(package, model, {.dtype = dtype, .device = at::kCPU}));
  return LoadedRouter{.name = name,
                      .fingerprint = PackageFingerprint(package),
                      .path = path,
                      .loaded_at = absl::Now(),
                      .router = std::move(router)};
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
  if (error) return absl::NotFoundError(absl::StrCat("routers.root: ", root, ": ", error.message()));
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
  PENSTOCK_ASSIGN_OR_RETURN(const std::shared_ptr<const Checkpoint> checkpoint,
                            Checkpoint::Open(options.model_path, {.threads = 0, .progress = options.progress}));
  Backend backend;
  PENSTOCK_ASSIGN_OR_RETURN(backend.text, LoadText(*checkpoint));

  const std::int64_t longest = std::min<std::int64_t>(options.max_context, checkpoint->config().max_position_embeddings);
  ReferenceModelOptions model{.name = {},
                              .dtype = options.dtype,
                              .block_tokens = options.block_tokens,
                              .num_blocks = 1,
                              .max_context = static_cast<int>(longest)};
  PENSTOCK_ASSIGN_OR_RETURN(const std::int64_t block_bytes, ReferenceKvBlockBytes(*checkpoint, model));
  PENSTOCK_ASSIGN_OR_RETURN(model.num_blocks, BlocksOfKvCache(options, block_bytes, model.max_context));
  PENSTOCK_ASSIGN_OR_RETURN(backend.model, CreateReferenceModel(checkpoint, model));

  PENSTOCK_ASSIGN_OR_RETURN(const RouterBase base, RouterBaseOf(*checkpoint));
  const at::ScalarType dtype = ScalarTypeOf(backend.model->spec().dtype);
  const RouterModel held_against{.shape = base.shape, .base_fingerprint = base.fingerprint};
  PENSTOCK_ASSIGN_OR_RETURN(const RouterPackage own, CheckpointRouterPackage(held_against, base.gates));
  PENSTOCK_ASSIGN_OR_RETURN(LoadedRouter own_router,
                            Load(std::string(kCheckpointRouter), "", own, held_against, dtype));
  backend.own_router = std::make_shared<const LoadedRouter>(std::move(own_router));

  backend.allow_other_base = std::make_shared<std::atomic<bool>>(options.allow_other_base);
  backend.load_router = [held_against, dtype, root = options.routers_root, allowed = backend.allow_other_base](
                            const std::string& name, const std::string& path) -> absl::StatusOr<LoadedRouter> {
    RouterModel model = held_against;
    model.allow_other_base = *allowed;
    PENSTOCK_ASSIGN_OR_RETURN(const std::string folder, ResolvePackagePath(root, path));
    PENSTOCK_ASSIGN_OR_RETURN(const RouterPackage package,
                              LoadRouterPackage(folder, RouterRegistry::Global().catalogue(), model));
    return Load(name, path, package, model, dtype);
  };
  return backend;
}

}  // namespace penstock
