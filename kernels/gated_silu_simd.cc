#include "kernels/gated_silu.h"
#include "kernels/simd_element.h"
#include "kernels/simd_math.h"

namespace penstock::PENSTOCK_ISA {

void GatedSilu(const GatedSiluArgs& args, std::int64_t first, std::int64_t last) {
  WithElement(args.element, [&](auto e) {
    using E = decltype(e);
    using Stored = typename E::Stored;
    for (std::int64_t row = first; row < last; ++row) {
      const auto* gate = static_cast<const Stored*>(args.gate) + row * args.stride;
      const auto* up = static_cast<const Stored*>(args.up) + row * args.stride;
      auto* y = static_cast<Stored*>(args.y) + row * args.y_stride;
      for (std::int64_t i = 0; i < args.width; i += kLanes) {
        const int count = Lanes(args.width - i);
        const Vec silu = Round<E>(Silu(LoadUpTo<E>(gate + i, count)));
        StoreUpTo<E>(y + i, silu * LoadUpTo<E>(up + i, count), count);
      }
    }
  });
}

}  // namespace penstock::PENSTOCK_ISA
