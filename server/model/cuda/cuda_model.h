// The GPU backend: the whole model on one NVIDIA H100, decode steps as CUDA graphs.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/model/checkpoint/byte_progress.h"
#include "server/model/checkpoint/checkpoint.h"
#include "server/model/checkpoint/model_config.h"
#include "server/model/model.h"

namespace penstock {

class Router;  // routers/router.h

struct CudaModelOptions {
  std::string name;          // served name
  int block_tokens = 16;     // positions of a KV block: 16
  int max_batch = 256;       // sequences of a step
  int max_step_rows = 2304;  // rows of a step, prefill included; at least max_batch
  int max_context = 8192;    // positions of one sequence
  std::optional<std::int64_t>
      kv_bytes;           // of the KV cache; unset: what max_batch contexts want, if that is free
  int max_routers = 32;   // known to the device at once: those loaded, and those still in use
  bool telemetry = true;  // counts routing decisions
  std::uint64_t dummy_seed = 0;  // of random weights
  ByteProgress progress = nullptr;
};

// OK: there is a GPU that the engine runs on. Else one line that says why not: this build has no
// CUDA, no driver, no GPU, or another one.
absl::Status CudaDeviceStatus();

// "NVIDIA H100 80GB HBM3". Only when CudaDeviceStatus is OK.
std::string CudaDeviceName();

// Bytes of the GPU's memory. From any thread. UNAVAILABLE once the device is lost.
struct CudaMemory {
  std::int64_t free = 0, total = 0;
};
absl::StatusOr<CudaMemory> CudaMemoryNow();

// Bytes a second, read and written, of a large copy on the device, measured now.
absl::StatusOr<double> MeasureCopyBandwidth();

// What the model cannot compute on the GPU, as INVALID_ARGUMENT: shapes, dtypes, options.
absl::Status CheckCudaModel(const ModelConfig& config, const std::string& dtype,
                            const CudaModelOptions& options);

// Whether the device's router program computes this router. INVALID_ARGUMENT says why not.
absl::Status CheckCudaRouter(const Router& router);

// Copies the checkpoint's weights to the GPU. RESOURCE_EXHAUSTED: how much memory was free and
// wanted, and which option to lower. Routers of its steps must be on the device
// (RouterOptions::device).
//
// Two steps may be in flight. What a sequence gets does not depend, to the bit, on the sequences
// beside it as long as steps fall into the same family of kernels: decode steps of up to 64 rows,
// decode steps above, and steps with prompts each round in their own order, these also where an
// expert has 192 rows or more on average (BENCHMARKS.md has the size of the difference). On a CUDA
// error Await answers UNAVAILABLE, and will from then on.
absl::StatusOr<std::unique_ptr<Model>> CreateCudaModel(const Checkpoint& checkpoint,
                                                       const CudaModelOptions& options);
// The same with seeded random weights, made on the device.
absl::StatusOr<std::unique_ptr<Model>> CreateDummyCudaModel(const ModelConfig& config,
                                                            const CudaModelOptions& options);

}  // namespace penstock
