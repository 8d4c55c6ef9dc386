#include <algorithm>

#include "kernels/bf16.h"
#include "kernels/dense_product.h"

namespace penstock {

std::int64_t DenseProductPart(const DenseProductArgs& args) {
  const std::int64_t part = (args.n + args.splits - 1) / args.splits;
  return (part + 63) / 64 * 64;
}

void DenseProductCpu(const DenseProductArgs& args) {
  const auto* x = static_cast<const std::uint16_t*>(args.x);
  const auto* weight = static_cast<const std::uint16_t*>(args.weight);
  const std::int64_t part = DenseProductPart(args);
  for (std::int64_t s = 0; s < args.splits; ++s) {
    const std::int64_t first = std::min(s * part, args.n), last = std::min(first + part, args.n);
    for (std::int64_t row = 0; row < args.rows; ++row) {
      for (std::int64_t i = 0; i < args.m; ++i) {
        float sum = 0.0f;
        for (std::int64_t j = first; j < last; ++j)
          sum += FloatOfBf16(x[row * args.n + j]) * FloatOfBf16(weight[i * args.n + j]);
        const std::int64_t place = (s * args.rows + row) * args.m + i;
        if (args.y_element == Element::kBF16) {
          static_cast<std::uint16_t*>(args.y)[place] = Bf16OfFloat(sum);
        } else {
          static_cast<float*>(args.y)[place] = sum;
        }
      }
    }
  }
}

}  // namespace penstock
