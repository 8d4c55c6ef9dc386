// What a router kind says about itself, torch-free: its hyperparameters, its tensors, its cost, and
// how an untrained one starts. Each kind writes this once, in its own file
// (routers/<kind>_router.cc); everything else (packages, the command line, charts, tests) reads it
// from here.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "routers/package/safetensors.h"

namespace penstock {

class RouterSpec;

// What a checkpoint fixes for every router.
struct RouterShape {
  std::int64_t d = 0;                // width of the hidden state
  std::int64_t experts = 0;          // E, per sparse layer
  std::int64_t top_k = 0;            // k, experts chosen per token
  std::vector<std::int64_t> layers;  // indices in model.layers of the sparse layers, ascending
  std::int64_t vocab_size = 0;       // of config.json; 0: not known
  bool norm_topk_prob = false;       // chosen weights are divided by their sum
};

// A whole number, or one of a few words.
using HyperValue = std::variant<std::int64_t, std::string>;
using Hyper = std::map<std::string, HyperValue>;

// One key of `hyper` in router.json.
struct HyperRule {
  std::string name;
  std::string summary;
  // A whole number in [least, most] …
  std::int64_t fallback = 0;  // what an untrained router gets when nothing is said
  std::int64_t least = 1;
  std::int64_t most = 1;
  // … or, when not empty, one of these words; the first is the fallback.
  std::vector<std::string> words = {};
  // If set, the number must be this one of the model's (when it is known), which is then the
  // fallback too.
  std::function<std::int64_t(const RouterShape&)> of_model = nullptr;
};

// What an untrained tensor is made from.
struct StartInputs {
  const RouterSpec& spec;
  int layer;        // sparse layers from 0
  TensorView gate;  // [E, d], the checkpoint's gate of this layer
  std::uint64_t seed;
  std::uint32_t tensor;  // place in the kind's list: with `layer`, its own random stream
  std::span<const std::int64_t> token_counts;  // [V]; empty: every token counts once
  std::optional<double>
      gate_mass;  // mean Σ_S p of the checkpoint's gate in this layer, if measured
};
using FloatStart = std::function<void(const StartInputs&, std::span<float>)>;
using Int32Start = std::function<void(const StartInputs&, std::span<std::int32_t>)>;

// Starts that several kinds share.
FloatStart NormalStart(std::int64_t fan_in);  // mean 0, standard deviation 1/√fan_in, from the seed
FloatStart ConstantStart(float value);
FloatStart GateStart();  // the checkpoint's gate, widened

// One tensor per sparse layer: `layers.{i}.{name}` of router.safetensors. Set `start`, or
// `int32_start` for a tensor of int32; all others are of the package's float dtype.
struct TensorRule {
  std::string name;
  std::vector<std::int64_t> shape;
  FloatStart start = nullptr;
  FloatStart neutral_start = nullptr;  // of the kind's neutral start, where it differs
  Int32Start int32_start = nullptr;
  // Beyond shape, dtype and finite values: what is wrong ("got …, want …"), or nothing.
  std::function<std::optional<std::string>(const TensorView&)> complaint = nullptr;

  bool is_int32() const { return int32_start != nullptr; }
};

struct RouterKind {
  std::string name;
  std::string summary;  // one line
  std::vector<HyperRule> hyper = {};
  // Has a start that routes exactly as the checkpoint's gate.
  bool has_neutral_start = false;
  // What is wrong between hyperparameters that are each in range ("hyper.heads: got …, want …"), or
  // nothing. May be null.
  std::function<std::optional<std::string>(const RouterSpec&)> complaint = nullptr;
  std::function<std::vector<TensorRule>(const RouterSpec&)> tensors;
  // Per token and layer. A multiply-add is 2, a softmax 5 and a GELU 8 per element; biases, the
  // mean over heads, logs, the final softmax and top-k are free.
  std::function<std::int64_t(const RouterSpec&)> flops;
};

}  // namespace penstock
