#include "routers/package/router_kind.h"

#include <algorithm>
#include <cmath>

#include "kernels/normal.h"
#include "routers/package/tensor_values.h"

namespace penstock {

FloatStart NormalStart(std::int64_t fan_in) {
  return [fan_in](const StartInputs& inputs, std::span<float> out) {
    FillNormal(inputs.seed, {static_cast<std::uint32_t>(inputs.layer), inputs.tensor},
               1.0 / std::sqrt(static_cast<double>(fan_in)), out);
  };
}

FloatStart ConstantStart(float value) {
  return [value](const StartInputs&, std::span<float> out) {
    std::fill(out.begin(), out.end(), value);
  };
}

FloatStart GateStart() {
  return [](const StartInputs& inputs, std::span<float> out) { WidenTo(inputs.gate, out); };
}

}  // namespace penstock
