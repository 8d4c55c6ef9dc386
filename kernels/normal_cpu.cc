#include <cmath>
#include <cstddef>

#include "kernels/normal.h"
#include "kernels/normal_quantile.h"

// Built without contraction (kernels/CMakeLists.txt): a fused multiply-add rounds once where the
// definition rounds twice.

namespace penstock {

double NormalQuantile(double p) {
  return normal_quantile::Quantile(p, [](double x) { return std::sqrt(x); });
}

void FillNormal(std::uint64_t seed, NormalStream stream, double std, std::span<float> out) {
  const PhiloxKey key = PhiloxKeyOf(seed);
  PhiloxBlock block{};
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (i % 2 == 0) block = normal_quantile::Bits(key, stream, i / 2);
    const double p = normal_quantile::Probability(block, static_cast<int>(i % 2));
    out[i] = static_cast<float>(NormalQuantile(p) * std);
  }
}

}  // namespace penstock
