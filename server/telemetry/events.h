// What happens in the server, in its own terms. Only server/telemetry knows under which metric
// names it is shown.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace penstock {

// What one router decided in one layer for the rows of one step. Additive; padding and recomputed
// rows are left out.
struct RoutingCounts {
  std::string router;
  int layer = 0;  // index in model.layers
  std::int64_t rows = 0;
  std::vector<std::int64_t> slots;  // [E]: rows routed to each expert; sums to k · rows
  double entropy = 0;               // Σ over rows of −Σ_e p ln p, nats
  double topk_mass = 0;             // Σ over rows of Σ_{i∈S} p_i
};

struct RouterStepShare {
  std::string router;
  std::int64_t rows = 0;       // each counted once, not per layer
  absl::Duration router_time;  // spent in Route
};

enum class StepPhase { kPrefill, kDecode, kMixed };

// A gap between two tokens of one answer.
struct TokenGap {
  std::string router;
  absl::Duration gap;
};

struct StepEvent {
  StepPhase phase = StepPhase::kDecode;
  absl::Duration duration;
  std::int64_t rows = 0;
  std::vector<RouterStepShare> routers;  // those with rows in the step
  std::vector<RoutingCounts> routing;    // per router and layer
  int routing_steps =
      1;  // steps that `routing` covers: a GPU's counters are not read after every one
  std::vector<TokenGap> gaps;
  int expert_passes = 0;  // grouped expert products of the step: one per sparse layer
};

enum class Api { kGrpc, kOip, kOpenAi };

// A request that ended, in whatever way, refused ones included.
struct RequestEvent {
  Api api = Api::kGrpc;
  std::string tenant;
  std::string router;  // empty: refused before one was chosen
  std::string code;    // gRPC status code's name: "OK", "CANCELLED", …
  // The experiment that chose the router, and why; empty: none did.
  std::string experiment, revision, arm, reason;
  std::int64_t prompt_tokens = 0;
  std::int64_t cached_prompt_tokens = 0;
  std::int64_t generated_tokens = 0;
  absl::Duration total;
  absl::Duration queue;
  absl::Duration prefill;              // admission to first token
  absl::Duration time_to_first_token;  // from arrival
  bool started = false;                // false: queue, prefill and first token don't apply
};

// A momentary state, replaced by the next.
struct LoadEvent {
  std::int64_t running = 0;  // sequences
  std::int64_t waiting = 0;
  std::int64_t blocks_free = 0;
  std::int64_t blocks_active = 0;
  std::int64_t blocks_cached = 0;  // reusable content, held by no sequence
  std::int64_t preemptions = 0;    // since start
};

}  // namespace penstock
