// Row-wise functions of the kinds, in fp32. On a CPU they run the loops of kernels/, whose results
// for a row do not depend on its place (ATen's vector loops round their tails differently);
// elsewhere, plain ATen. All differentiable: with gradients the forward is the same, to the bit.
#pragma once

#include <string>

#include "ATen/core/Tensor.h"
#include "c10/core/ScalarType.h"
#include "kernels/gelu.h"

namespace penstock {

// M of routers.md: rounds to the model's activation dtype, and widens again. x: fp32.
at::Tensor RoundTo(const at::Tensor& x, at::ScalarType dtype);

// x: [rows, n] → [rows, n].
at::Tensor Gelu(const at::Tensor& x, GeluForm form);

// "erf" or "tanh", as the hyperparameter `gelu` spells them.
GeluForm GeluFormOf(const std::string& word);

// The log of the mean over heads of a softmax over experts. scores: [rows, heads, E] → [rows, E].
at::Tensor HeadMixture(const at::Tensor& scores);

// Logits of several heads of query and key: HeadMixture of K_j q_j / √(a/H), q = W_q x; head j has
// rows j·a/H … of W_q. x: [rows, d] fp32; query: [a, d]; keys: [H, E, a/H] → [rows, E].
at::Tensor QueryKeyLogits(const at::Tensor& x, const at::Tensor& query, const at::Tensor& keys);

}  // namespace penstock
