// Fingerprints: which router this is, and which model it was made for. SHA-256, 64 lowercase
// hexadecimal digits. Golden values, recomputed in Python: tests/vectors/router_fingerprints.json.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "routers/package/router_kind.h"
#include "routers/package/safetensors.h"

namespace penstock {

// Identity of a router package, over its content and not over its files. Hashed in this order (text
// as UTF-8, u64 little-endian):
//   kind, 0x00, HyperJson(hyper), 0x00,
//   then per tensor, by name in byte order: name, 0x00, dtype as safetensors spells it ("F32"),
//   0x00, number of dimensions (u64), each dimension (u64), the bytes.
// `tensors` by full name ("layers.3.W"), float tensors in the package's own dtype.
std::string PackageFingerprint(std::string_view kind, const Hyper& hyper,
                               const std::map<std::string, TensorView, std::less<>>& tensors);

// A checkpoint's gate of one sparse layer, by its name in the Hugging Face layout
// ("model.layers.3.mlp.gate.weight").
struct NamedGate {
  std::string name;
  TensorView weight;  // [E, d], F32, BF16 or F16
};

// Identity of the model that a router was made for. Hashed: d, E, k, number of hidden layers
// (sparse or not), vocab_size (u64, little-endian); then per sparse layer, ascending: name, 0x00,
// the gate's values as little-endian fp32. `gates`: one per shape.layers. INVALID_ARGUMENT names a
// gate of wrong shape or dtype.
absl::StatusOr<std::string> BaseFingerprint(const RouterShape& shape,
                                            std::int64_t num_hidden_layers,
                                            std::span<const NamedGate> gates);

}  // namespace penstock
