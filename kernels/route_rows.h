// Routing of one layer's rows, every row by its own router (kernels/router_program.h): logits,
// softmax, the k largest, lists for the experts' products, counters.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda_stream.h"
#include "kernels/router_program.h"

namespace penstock {

// Limits of one launch.
struct RouteShape {
  std::int64_t max_rows = 0;     // at most 16,384
  std::int64_t max_routers = 0;  // descriptors of a layer
  std::int64_t max_hidden = 0;   // the largest h of a descriptor
  std::int64_t d = 0;            // multiple of 8
  std::int64_t experts = 0;      // E, at most 256
  std::int64_t k = 0;            // 1 to min(E, 16)
};

// The step's rows by router, the same for all layers. Device memory of RoutePlanBytes.
struct RoutePlan {
  void* memory = nullptr;
};
std::size_t RoutePlanBytes(const RouteShape& shape);

struct PlanRoutesArgs {
  RouteShape shape = {};
  const std::int32_t* num_rows = nullptr;     // [1]; rows from here on are padding
  const std::int32_t* row_routers = nullptr;  // [rows]: index of the row's descriptor
  const RouterProgram* programs = nullptr;    // [routers], of any layer
  RoutePlan plan = {};                        // out
};
// To be launched before EmbedRows, which lets nothing behind it start before the plan is there.
void PlanRoutesCuda(const PlanRoutesArgs& args, CudaStream stream);

// Device pointers.
struct RouteRowsArgs {
  RouteShape shape = {};
  RoutePlan plan = {};
  const std::int32_t* num_rows = nullptr;     // [1]
  const std::int32_t* row_routers = nullptr;  // [rows]
  const std::uint8_t* counted = nullptr;      // [rows]: 0 leaves a row out of the counters
  const std::int32_t* token_ids = nullptr;    // [rows]
  const void* x = nullptr;                    // [rows, d] bf16: after post_attention_layernorm
  const RouterProgram* programs = nullptr;    // [routers], of this layer
  bool normalize = false;                     // weights sum to 1 (`norm_topk_prob`)
  const void* shared_gate = nullptr;          // [d] bf16, or null: no shared expert
  std::int32_t layer = 0;                     // index in model.layers, for failed_layer

  void* scratch = nullptr;  // RouteScratchBytes; zeroed once, then left alone

  std::int32_t* expert_ids = nullptr;   // [rows, k], out: by falling logit, ties to the lower id
  float* weights = nullptr;             // [rows, k], out: before M
  float* shared_gate_logits = nullptr;  // [rows], out: rounded to bf16's values
  // [E + 1], out: an expert's part of slot_rows; null: no lists are wanted.
  std::int32_t* expert_offsets = nullptr;
  std::int32_t* slot_rows = nullptr;  // [rows · k], out: row · k + rank, by expert, then by row
  std::int32_t* failed_layer = nullptr;  // [rows], in and out: `layer` where a logit is not
                                         // finite (or a token has no table entry), if it was −1

  std::uint64_t* expert_rows = nullptr;  // [routers, E], counters of this layer, in and out
  RouterCounters* counters = nullptr;    // [routers], in and out
  // Optional, for tests and characterization.
  float* probabilities = nullptr;  // [rows, E], out
  float* logits = nullptr;         // [rows, E], out (not for tables)
};

std::size_t RouteScratchBytes(const RouteShape& shape);

// Rows of requests that failed in this layer or an earlier one are left out of the counters; a row
// that is not finite gets experts 0 … k − 1 with weight 0. expert_ids and weights of a layer are
// its trace: give every layer its own where one is wanted. counters may be null: telemetry off.
void RouteRowsCuda(const RouteRowsArgs& args, CudaStream stream);

// The lists of RouteRows alone, on a CPU.
void MakeExpertLists(const std::int32_t* expert_ids, std::int64_t rows, std::int64_t k,
                     std::int64_t experts, std::int32_t* expert_offsets, std::int32_t* slot_rows);

// The twin, by host pointers; plan and scratch are not used.
void RouteRowsCpu(const RouteRowsArgs& args);

}  // namespace penstock
