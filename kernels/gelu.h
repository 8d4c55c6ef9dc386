// GELU in fp32, element by element in scalar code: a vector loop's tail would round otherwise than
// its body, and a value would depend on its place.
#pragma once

#include <cstdint>

namespace penstock {

enum class GeluForm {
  kErf,   // x Φ(x)
  kTanh,  // ½ x (1 + tanh(√(2/π) (x + 0.044715 x³)))
};
// Source of both: Hendrycks and Gimpel, "Gaussian error linear units", arXiv 1606.08415.

// x, y: [count], may be the same.
void GeluCpu(const float* x, float* y, std::int64_t count, GeluForm form);

}  // namespace penstock
