#include <cmath>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/expert_combine.h"
#include "kernels/rms_norm.h"

namespace penstock {

void ExpertCombineCpu(const ExpertCombineArgs& args) {
  const std::int64_t rows = *args.num_rows, d = args.d, places = args.k + args.shared;
  const auto partial = [&](std::int64_t row, std::int64_t place, std::int64_t i) {
    const std::int64_t at = (row * places + place) * d + i;
    return args.partial_element == Element::kF32
               ? static_cast<const float*>(args.partials)[at]
               : FloatOfBf16(static_cast<const std::uint16_t*>(args.partials)[at]);
  };
  std::vector<std::uint16_t> delta(static_cast<std::size_t>(rows * d));
  for (std::int64_t row = 0; row < rows; ++row) {
    const float gate =
        args.shared == 0 ? 0 : RoundToBf16(1.0f / (1.0f + std::exp(-args.shared_gate_logits[row])));
    for (std::int64_t i = 0; i < d; ++i) {
      float routed = 0, gated = 0;
      for (std::int64_t rank = 0; rank < args.k; ++rank) {
        const float weight = RoundToBf16(args.weights[row * args.k + rank]);
        routed += RoundToBf16(weight * RoundToBf16(partial(row, rank, i)));
      }
      for (std::int64_t slice = 0; slice < args.shared; ++slice) {
        gated += partial(row, args.k + slice, i);
      }
      float sum = RoundToBf16(routed);
      if (args.shared > 0) sum = RoundToBf16(sum + RoundToBf16(gate * RoundToBf16(gated)));
      delta[static_cast<std::size_t>(row * d + i)] = Bf16OfFloat(sum);
    }
  }
  RmsNormCpu({.element = Element::kBF16,
              .x = args.x,
              .delta = delta.data(),
              .weight = args.norm_weight,
              .y = args.y,
              .d = d,
              .epsilon = args.epsilon},
             0, rows);
}

}  // namespace penstock
