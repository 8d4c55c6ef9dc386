// Untrained routers: packages made from a seed, and from the checkpoint's gates.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "routers/package/router_package.h"

namespace penstock {

struct RouterStart {
  RouterModel model;
  std::vector<TensorView>
      gates;  // [E, d] per sparse layer, F32, BF16 or F16; borrowed during the call
  std::uint64_t seed = 0;
  // Start where the router routes exactly as the checkpoint's gate. INVALID_ARGUMENT for a kind
  // that cannot.
  bool neutral = false;
  Hyper hyper = {};  // in place of the kind's fallbacks
  // For kinds that place tokens: how often each token id occurs, [V]; empty: every token once.
  std::vector<std::int64_t> token_counts = {};
  // For kinds that place tokens: the mean over a text of Σ_S p of the checkpoint's gate, per sparse
  // layer, in (0, 1]; empty: k/E.
  std::vector<double> gate_mass = {};
};

// A package in memory, its floats in fp32; the same start gives the same bits on every platform.
// Errors as RouterSpec::Create and CheckTensors, and INVALID_ARGUMENT naming the field of `start`.
absl::StatusOr<RouterPackage> InitRouter(const RouterKind& kind, const RouterStart& start);

}  // namespace penstock
