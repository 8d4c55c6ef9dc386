// What happens in the server, in its own terms. Only server/telemetry knows under which metric
// names it is shown.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
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

// What one router (`shadow`) would have decided in one layer for rows of one step that another
// (`router`) served, on the hidden states that the serving one saw. Additive. Rows that
// RoutingCounts leaves out are left out here too.
struct ShadowCounts {
  std::string router, shadow;
  int layer = 0;  // index in model.layers
  std::int64_t rows = 0;
  std::int64_t overlap = 0;  // Σ over rows of |S_router ∩ S_shadow|, of k each
  // Rows of two routers that have logits, and their Σ KL(p_router ‖ p_shadow), nats.
  std::int64_t kl_rows = 0;
  double kl = 0;
  double entropy = 0;  // Σ over rows of the shadow's −Σ_e p ln p, nats
  std::vector<std::int64_t>
      slots;                // [E]: rows that the shadow sends to each expert; sums to k · rows
  std::int64_t failed = 0;  // further rows, for which the shadow's logits were not finite
};

// Whether other routers were asked for a step's rows.
enum class ShadowOutcome {
  kNone,     // the step is not in the sample
  kCounted,  // they were
  kSkipped,  // it is in the sample, and the bound on their cost left no room
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
  ShadowOutcome shadow = ShadowOutcome::kNone;
  std::vector<ShadowCounts> shadows = {};  // per pair of routers and layer
  absl::Duration shadow_time = {};         // of `duration`, spent on them
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

// What an experiment has measured until now, over the units whose windows have closed.
struct ExperimentFigures {
  struct Sums {
    std::string arm, metric;
    std::int64_t count = 0;  // units
    double sum = 0, sum_squares = 0;
    std::optional<double> cross_sum;  // with the denominator, where the metric is a ratio
  };
  struct Exposures {
    std::string arm;
    std::int64_t units = 0;
  };
  // Of all requests of an arm, whether or not their unit's window has closed.
  struct Traffic {
    std::string arm, quantity;
    double sum = 0;
  };
  struct UniqueUnits {
    std::string arm;
    double units = 0;  // an estimate
  };
  struct Durations {
    std::string arm, metric;
    std::vector<std::pair<double, std::int64_t>> at_most;  // seconds, ascending, and how many
    std::int64_t count = 0;
    double sum = 0;  // seconds
  };
  std::string experiment, revision;
  struct Window {
    std::string name;  // "unit", "outcome", "burn_in"
    double seconds = 0;
  };
  absl::Time since;         // this period of the analysis
  std::int64_t period = 1;  // of the analysis
  double measured = 1;      // of the units, the share whose sums are kept
  double sample_ratio_p_value = 1;
  std::vector<Window> windows;
  std::vector<Exposures> first_exposures;
  std::vector<Sums> sums;
  std::vector<Traffic> traffic;
  std::vector<UniqueUnits> unique_units;
  std::vector<Durations> durations;
  std::vector<std::uint64_t> unit_sample;  // the smallest hashes of units, 53 bits, ascending
};

// A momentary state, replaced by the next.
struct LoadEvent {
  std::int64_t running = 0;  // sequences
  std::int64_t waiting = 0;
  std::int64_t blocks_free = 0;
  std::int64_t blocks_active = 0;
  std::int64_t blocks_cached = 0;    // reusable content, held by no sequence
  std::int64_t preemptions = 0;      // since start
  std::int64_t background_rows = 0;  // since start: of texts scored again under other arms
};

}  // namespace penstock
