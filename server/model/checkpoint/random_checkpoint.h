// Seeded checkpoints of any size, for benchmarks and tests without released weights.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "server/model/checkpoint/byte_progress.h"
#include "server/model/checkpoint/model_tensors.h"

namespace penstock {

struct RandomCheckpointOptions {
  ExpertLayout layout = ExpertLayout::kPerExpert;
  std::int64_t max_shard_bytes = 0;  // 0: one file; a tensor above it gets a file of its own
  std::optional<DType> dtype = {};   // F32, F16 or BF16; unset: the config's, or else BF16
};

// Writes config.json (that of `config_json_path` with the dtype) and the weights into a new or
// empty folder, which appears whole or not at all. A tensor's values depend on `seed` and its name
// alone (random_weights.h), so that neither sharding nor any other tensor changes them. Streams:
// holds 64 MB at a time, which all cores fill. `progress` may be null.
absl::Status WriteRandomCheckpoint(const std::string& config_json_path, std::uint64_t seed,
                                   const std::string& out_folder,
                                   const RandomCheckpointOptions& options,
                                   const ByteProgress& progress);

}  // namespace penstock
