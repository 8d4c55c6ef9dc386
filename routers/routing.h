// What a router decides for the rows of one layer.
#pragma once

#include "ATen/core/Tensor.h"

namespace penstock {

struct Routing {
  at::Tensor experts;  // [rows, k] int32, in falling order of logit, ties to the lower index
  at::Tensor
      weights;  // [rows, k] fp32, w_i of routers.md step 4, before the cast M to the model's dtype
  at::Tensor
      probabilities;  // [rows, E] fp32, softmax over all experts (for `hash`: 1/k on the chosen)
  at::Tensor finite;  // [rows] bool, false where a logit was NaN or infinite
  at::Tensor logits = {};  // [rows, E] fp32, z; undefined for a kind that has none
};

}  // namespace penstock
