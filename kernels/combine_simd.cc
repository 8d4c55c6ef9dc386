#include "kernels/combine.h"
#include "kernels/simd_element.h"
#include "kernels/simd_math.h"

namespace penstock::PENSTOCK_ISA {
namespace {

template <typename E>
void Row(const CombineArgs& args, std::int64_t row) {
  using Stored = typename E::Stored;
  const std::int64_t d = args.d, k = args.k;
  const auto* experts = static_cast<const Stored*>(args.expert_output);
  const auto* shared = static_cast<const Stored*>(args.shared_output) + row * d;
  const std::int32_t* slots = args.slots + row * k;
  const float* weights = args.weights + row * k;
  auto* y = static_cast<Stored*>(args.y) + row * d;
  const Vec logit = LoadPartial<E>(static_cast<const Stored*>(args.shared_gate) + row, 1);
  const Vec gate = Splat(Round<E>(Splat(1.0f) / (Splat(1.0f) + Exp(-logit)))[0]);
  for (std::int64_t i = 0; i < d; i += kLanes) {
    const int count = Lanes(d - i);
    Vec sum = {};
    for (std::int64_t rank = 0; rank < k; ++rank) {
      const Vec weight = Round<E>(Splat(weights[rank]));
      sum += Round<E>(LoadUpTo<E>(experts + slots[rank] * d + i, count) * weight);
    }
    const Vec gated = Round<E>(gate * LoadUpTo<E>(shared + i, count));
    StoreUpTo<E>(y + i, Round<E>(sum) + gated, count);
  }
}

}  // namespace

void Combine(const CombineArgs& args, std::int64_t first, std::int64_t last) {
  WithElement(args.element, [&](auto e) {
    for (std::int64_t row = first; row < last; ++row) Row<decltype(e)>(args, row);
  });
}

}  // namespace penstock::PENSTOCK_ISA
