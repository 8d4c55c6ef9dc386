// Seeded random weights: the same on every machine, for any cut into pieces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "routers/package/safetensors_writer.h"

namespace penstock {

// Where the values of a model's tensor are centred, and how far they spread.
struct WeightScale {
  double mean = 0, std = 0;
};

// Keeps activations near 1 at any size: matrices 1/√(columns) (0.022 at d = 2048, Hugging Face's
// 0.02), norms 1 ± 0.1, biases 0.1.
WeightScale ScaleOf(const TensorLayout& tensor);

// A normal stream fixed by (seed, name): element i never depends on the others. Each value is a sum
// of eight 16-bit uniform numbers (Irwin-Hall: normal up to 4.9 standard deviations, excess
// kurtosis −0.15), exact in integers and so the same with every compiler and mathematical library.
class RandomWeights {
 public:
  RandomWeights(std::uint64_t seed, const std::string& name);

  // Element `index`, mean 0, standard deviation 1.
  double At(std::uint64_t index) const;

  // Elements `first`, `first` + 1, … in `dtype` (F32, F16 or BF16), as many as fit into `bytes`.
  void Fill(WeightScale scale, DType dtype, std::uint64_t first, std::span<std::byte> bytes) const;

 private:
  std::uint64_t key_;
};

}  // namespace penstock
