// Scores of several heads of query and key as one product of the row, as programs of the GPU engine
// compute them.
#pragma once

#include <mutex>
#include <vector>

#include "ATen/core/Tensor.h"

namespace penstock {

// Per layer [H · E, d] fp32: K_je W_qj / √(a/H) of head j and expert e, computed in double
// precision: q is not needed for itself, and a product less stands between a row and its experts.
// On a GPU that is done at once; on a CPU, where nothing but a program's twin reads it, when it is
// first asked for. Thread-safe.
class HeadScores {
 public:
  // query: [a, d] fp32 per layer; keys: [H, E, a/H].
  HeadScores(std::vector<at::Tensor> query, std::vector<at::Tensor> keys);

  // On the device of the query; valid as long as this.
  const void* Of(int layer) const;

 private:
  void Multiply() const;

  const std::vector<at::Tensor> query_, keys_;
  mutable std::once_flag once_;
  mutable std::vector<at::Tensor> scores_;
};

}  // namespace penstock
