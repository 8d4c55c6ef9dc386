#include "kernels/rope.h"
#include "kernels/simd_element.h"

namespace penstock::PENSTOCK_ISA {

void RoundAll(Element element, float* values, std::int64_t count) {
  WithElement(element, [&](auto e) {
    using E = decltype(e);
    for (std::int64_t i = 0; i < count; i += kLanes) {
      const int part = Lanes(count - i);
      StoreUpTo<F32>(values + i, Round<E>(LoadUpTo<F32>(values + i, part)), part);
    }
  });
}

void Rope(const RopeArgs& args, std::int64_t first, std::int64_t last) {
  WithElement(args.element, [&](auto e) {
    using E = decltype(e);
    using Stored = typename E::Stored;
    const std::int64_t half = args.half;
    for (std::int64_t row = first; row < last; ++row) {
      for (std::int64_t head = 0; head < args.heads; ++head) {
        auto* low = static_cast<Stored*>(args.x) + (row * args.heads + head) * 2 * half;
        auto* high = low + half;
        for (std::int64_t i = 0; i < half; i += kLanes) {
          const int count = Lanes(half - i);
          const Vec cos = LoadUpTo<F32>(args.cos + row * half + i, count);
          const Vec sin = LoadUpTo<F32>(args.sin + row * half + i, count);
          const Vec a = LoadUpTo<E>(low + i, count), b = LoadUpTo<E>(high + i, count);
          StoreUpTo<E>(low + i, Round<E>(a * cos) + Round<E>(-b * sin), count);
          StoreUpTo<E>(high + i, Round<E>(b * cos) + Round<E>(a * sin), count);
        }
      }
    }
  });
}

}  // namespace penstock::PENSTOCK_ISA
