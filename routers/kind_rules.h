// Rules that several kinds share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "routers/package/router_spec.h"

namespace penstock {

// attention_width (a) and heads (H), of kinds with heads of query and key.
std::vector<HyperRule> QueryKeyHyper();
// H divides a.
std::optional<std::string> QueryKeyComplaint(const RouterSpec& spec);
// W_q [a, d] and K [H, E, a/H].
std::vector<TensorRule> QueryKeyTensors(const RouterSpec& spec);
// 2da + 2aE + 5HE.
std::int64_t QueryKeyFlops(const RouterSpec& spec);

// hidden_width (h) and gelu, of kinds with a hidden layer.
std::vector<HyperRule> HiddenLayerHyper();

// 2dE: of one product with a matrix of the gate's shape.
std::int64_t GateFlops(const RouterSpec& spec);

}  // namespace penstock
