// The model as the engine sees it: steps in, tokens out. Backends implement it; so does the tests'
// fake.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/scheduler/step_plan.h"

namespace penstock {

struct ModelSpec {
  std::string name;     // served name: the checkpoint folder's
  std::string backend;  // "cpu", …
  std::string dtype;    // "float32", "bfloat16", "float16"
  int num_layers = 0;
  std::vector<int> sparse_layers;  // ascending indices in model.layers
  int num_experts = 0;
  int top_k = 0;
  int hidden_size = 0;
  int vocab_size = 0;
  int max_context = 0;   // positions of one sequence
  int block_tokens = 0;  // positions of a KV block
  std::int64_t num_blocks = 0;
  std::int64_t weight_bytes = 0, kv_bytes = 0;
  bool shadow_routing = false;  // plans may have shadows
};

// Owned and called by the engine thread alone.
class Model {
 public:
  virtual ~Model() = default;

  virtual const ModelSpec& spec() const = 0;

  // Steps that may be submitted before the first is awaited.
  virtual int max_in_flight() const = 0;

  // Starts a step. `plan` stays valid and unchanged until its Await returned.
  virtual void Submit(const StepPlan& plan) = 0;

  // The result of the oldest submitted step. Blocks until it is there. An error means that the
  // whole step failed: INTERNAL or RESOURCE_EXHAUSTED fails its sequences; UNAVAILABLE: the device
  // is lost, nothing further will work.
  virtual absl::StatusOr<StepResult> Await() = 0;
};

}  // namespace penstock
