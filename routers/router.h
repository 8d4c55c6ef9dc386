// One router: a kind with its weights for every sparse layer of one model.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "kernels/router_program.h"
#include "routers/package/router_spec.h"

namespace at {
class Tensor;
}

namespace penstock {

struct Routing;  // routers/routing.h: it holds tensors, this header does not

// Immutable and thread-safe once made. Row-independent: what Route returns for a row never depends,
// to the bit, on the other rows of the call or on their number. That is what makes continuous
// batching and the prefix cache exact.
class Router {
 public:
  virtual ~Router() = default;

  // The kind with its hyperparameters, and the model's d, E, k and sparse layers.
  virtual const RouterSpec& spec() const = 0;

  // Routes rows of one layer. `layer` counts the sparse layers from 0. hidden: [rows, d] in the
  // model's dtype, what post_attention_layernorm gave. token_ids: [rows] int64, the token at each
  // row's own position. Never fails: a row whose logits are not finite is marked in Routing::finite
  // and gets valid expert ids.
  virtual Routing Route(int layer, const at::Tensor& hidden, const at::Tensor& token_ids) const = 0;

  // The same decision as a program for the GPU engine, of this router's tensors where they are
  // (RouterOptions::device); they live as long as the router. nullopt: no program says what this
  // router does, and only Route can.
  virtual std::optional<RouterProgram> Program(int /*layer*/) const { return std::nullopt; }
};

}  // namespace penstock
