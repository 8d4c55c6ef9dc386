#include "kernels/rms_norm.h"
#include "kernels/simd_element.h"
#include "kernels/simd_math.h"

namespace penstock::PENSTOCK_ISA {
namespace {

template <typename E>
void Row(const RmsNormArgs& args, std::int64_t row) {
  using Stored = typename E::Stored;
  const std::int64_t d = args.d;
  auto* x = static_cast<Stored*>(args.x) + row * d;
  const auto* delta =
      args.delta == nullptr ? nullptr : static_cast<const Stored*>(args.delta) + row * d;
  const auto* weight = static_cast<const Stored*>(args.weight);
  auto* y = static_cast<Stored*>(args.y) + row * d;
  Vec squares = {};
  for (std::int64_t i = 0; i < d; i += kLanes) {
    const int count = Lanes(d - i);
    Vec v = LoadUpTo<E>(x + i, count);
    if (delta != nullptr) {
      v = Round<E>(v + LoadUpTo<E>(delta + i, count));
      StoreUpTo<E>(x + i, v, count);
    }
    squares = MulAdd(v, v, squares);
  }
  const float mean = SumLanes(squares) / static_cast<float>(d);
  const Vec scale = Splat(1.0f / Sqrt(mean + args.epsilon));
  for (std::int64_t i = 0; i < d; i += kLanes) {
    const int count = Lanes(d - i);
    const Vec normal = Round<E>(LoadUpTo<E>(x + i, count) * scale);
    StoreUpTo<E>(y + i, normal * LoadUpTo<E>(weight + i, count), count);
  }
}

}  // namespace

void RmsNorm(const RmsNormArgs& args, std::int64_t first, std::int64_t last) {
  WithElement(args.element, [&](auto e) {
    for (std::int64_t row = first; row < last; ++row) Row<decltype(e)>(args, row);
  });
}

}  // namespace penstock::PENSTOCK_ISA
