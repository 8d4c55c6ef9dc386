// From a checkpoint folder to what the engine and the frontend need of it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "routers/package/router_kind.h"
#include "server/engine/frontend.h"
#include "server/engine/router_set.h"
#include "server/model/checkpoint/checkpoint.h"
#include "server/model/model.h"

namespace penstock {

struct BackendOptions {
  std::string model_path;       // a Qwen2-MoE checkpoint folder
  std::string device = "auto";  // "cuda", "cpu", or "auto": cuda where it can run the model
  // Seeded random weights of the shape that model_path/config.json says, made on the GPU.
  bool dummy_weights = false;
  bool text = true;  // reads tokenizer and chat template; without, Backend::text stays empty
  std::string dtype = "auto";  // "auto", "float32", "bfloat16" or "float16"
  int max_batch = 256;
  int prefill_chunk = 2048;  // prompt rows of a step
  int max_context = 8192;    // the model's own maximum bounds it too
  int block_tokens = 16;
  // Unset: enough for max_batch full contexts; at most a quarter of the host's free memory, or
  // nearly all of the GPU's.
  std::optional<std::int64_t> kv_bytes;
  bool telemetry = true;     // of routing decisions on the GPU
  std::string routers_root;  // empty: no packages can be loaded
  bool allow_other_base = false;
  ByteProgress progress;  // of reading the weights; may be empty
};

struct Backend {
  std::unique_ptr<Model> model;
  std::shared_ptr<const LoadedRouter> own_router;  // the checkpoint's gates
  RouterLoader load_router;
  std::shared_ptr<std::atomic<bool>> allow_other_base;  // what load_router goes by
  // An untrained router of a kind, seeded, under the kind's name: for measurements.
  std::function<absl::StatusOr<LoadedRouter>(const std::string& kind)> make_untrained;
  TextModel text;
};

absl::StatusOr<Backend> LoadBackend(const BackendOptions& options);

// `path` under `root`, both resolved. INVALID_ARGUMENT, field `path`: it is absolute, leaves the
// root, or is a link that does.
absl::StatusOr<std::string> ResolvePackagePath(const std::string& root, const std::string& path);

// What router packages are held against, and the checkpoint's gates, for the commands that make
// packages.
struct RouterBase {
  RouterShape shape;
  std::string fingerprint;
  std::vector<TensorView> gates;
};
absl::StatusOr<RouterBase> RouterBaseOf(const Checkpoint& checkpoint);

}  // namespace penstock
