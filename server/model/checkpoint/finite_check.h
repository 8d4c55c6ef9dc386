// The search for NaN and infinity among a checkpoint's weights.
#pragma once

#include "absl/status/status.h"
#include "server/model/checkpoint/byte_progress.h"
#include "server/model/checkpoint/shards.h"

namespace penstock {

// Reads every value, at the speed of memory or of the disk. INVALID_ARGUMENT names the first that
// is not finite, in order of the tensors' names, with file, tensor and index. `threads` at least 1.
absl::Status CheckFinite(const StoredTensors& tensors, int threads, const ByteProgress& progress);

}  // namespace penstock
