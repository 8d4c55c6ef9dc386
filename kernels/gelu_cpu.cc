#include <cmath>

#include "kernels/gelu.h"

namespace penstock {

void GeluCpu(const float* x, float* y, std::int64_t count, GeluForm form) {
  constexpr float kSqrtHalf = 0.70710678118654752440f;
  constexpr float kSqrtTwoOverPi = 0.79788456080286535588f;
  if (form == GeluForm::kErf) {
    for (std::int64_t i = 0; i < count; ++i) {
      y[i] = 0.5f * x[i] * (1.0f + std::erf(x[i] * kSqrtHalf));
    }
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) {
    const float inner = kSqrtTwoOverPi * (x[i] + 0.044715f * x[i] * x[i] * x[i]);
    y[i] = 0.5f * x[i] * (1.0f + std::tanh(inner));
  }
}

}  // namespace penstock
