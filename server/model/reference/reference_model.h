// The reference backend: the model on a CPU, exact and independent of the batch. It is what other
// backends are held against.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/model/checkpoint/checkpoint.h"
#include "server/model/model.h"

namespace penstock {

struct ReferenceModelOptions {
  std::string name = "";        // served name; empty: the checkpoint folder's
  std::string dtype = "auto";   // "auto" (the checkpoint's), "float32", "bfloat16" or "float16"
  int block_tokens = 16;        // positions of a KV block
  std::int64_t num_blocks = 0;  // of the KV cache: at least 1
  int max_context = 0;          // positions of one sequence; 0: the model's max_position_embeddings
};

// Bytes that one KV block of a model takes, in all layers. INVALID_ARGUMENT names the option that
// is wrong.
absl::StatusOr<std::int64_t> ReferenceKvBlockBytes(const Checkpoint& checkpoint,
                                                   const ReferenceModelOptions& options);

// The dtype of activations as ModelSpec names it, with "auto" resolved: what routers must be made
// for.
absl::StatusOr<std::string> ReferenceDtype(const Checkpoint& checkpoint,
                                           const ReferenceModelOptions& options);

// Weights in the wanted dtype stay in the checkpoint's mapped files; others are converted, into
// memory of their own. INVALID_ARGUMENT names the option that is wrong, with its value;
// RESOURCE_EXHAUSTED: out of memory.
//
// What a sequence gets (tokens, log-probabilities, routing) never depends, to the bit, on the
// sequences beside it, on how its prompt is cut into chunks, on which blocks hold it, or on what
// the cache held already, in any dtype. Uses ATen's threads (at::set_num_threads). A step runs
// within Await; one may be in flight.
absl::StatusOr<std::unique_ptr<Model>> CreateReferenceModel(
    std::shared_ptr<const Checkpoint> checkpoint, const ReferenceModelOptions& options);

}  // namespace penstock
