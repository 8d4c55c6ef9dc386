#include <vector>

#include "kernels/bf16.h"
#include "kernels/residual_norm.h"
#include "kernels/rms_norm.h"

namespace penstock {

void ResidualNormCpu(const ResidualNormArgs& args) {
  const std::int64_t rows = *args.num_rows;
  std::vector<std::uint16_t> sums;
  const void* delta = args.delta;
  if (args.delta_parts != nullptr) {
    sums.resize(static_cast<std::size_t>(rows * args.d));
    for (std::int64_t i = 0; i < rows * args.d; ++i) {
      float sum = 0;
      for (std::int64_t part = 0; part < args.parts; ++part) {
        sum += args.delta_parts[part * args.part_rows * args.d + i];
      }
      sums[static_cast<std::size_t>(i)] = Bf16OfFloat(sum);
    }
    delta = sums.data();
  }
  RmsNormCpu({.element = Element::kBF16,
              .x = args.x,
              .delta = delta,
              .weight = args.weight,
              .y = args.y,
              .d = args.d,
              .epsilon = args.epsilon},
             0, rows);
  if (args.ready != nullptr) *args.ready += static_cast<std::int32_t>(args.max_rows);
}

}  // namespace penstock
