#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/expert_products.h"

namespace penstock {
namespace {

float Dot(const std::uint16_t* a, const std::uint16_t* b, std::int64_t n) {
  float sum = 0.0f;
  for (std::int64_t i = 0; i < n; ++i) sum += FloatOfBf16(a[i]) * FloatOfBf16(b[i]);
  return sum;
}

// Calls function(expert, row, h_place, y_place) for every row of every expert.
template <typename Function>
void ForEachPlace(const ExpertProductsArgs& args, Function function) {
  const bool listed = ExpertsInListOrder(args);
  const std::int64_t shared = SharedPlaces(args);
  const auto routed = [&](std::int64_t expert, std::int64_t slot, std::int64_t place) {
    const std::int64_t row = slot / args.k, rank = slot % args.k;
    function(expert, row, listed ? place : row * (args.k + args.shared) + rank,
             row * (args.k + shared) + rank);
  };
  if (args.expert_ids != nullptr) {
    for (std::int64_t slot = 0; slot < *args.num_rows * args.k; ++slot) {
      const std::int64_t expert = args.expert_ids[slot];
      if (expert >= 0 && expert < args.experts) routed(expert, slot, slot);
    }
  } else {
    for (std::int64_t expert = 0; expert < args.experts; ++expert) {
      for (std::int64_t i = args.expert_offsets[expert]; i < args.expert_offsets[expert + 1]; ++i)
        routed(expert, args.slots[i], i);
    }
  }
  for (std::int64_t s = 0; s < args.shared; ++s) {
    for (std::int64_t row = 0; row < args.rows; ++row) {
      function(args.experts + s, row,
               listed ? args.rows * args.k + row * args.shared + s
                      : row * (args.k + args.shared) + args.k + s,
               row * (args.k + shared) + args.k + std::min(s, shared - 1));
    }
  }
}

}  // namespace

void ExpertGateUpCpu(const ExpertProductsArgs& args) {
  const auto* x = static_cast<const std::uint16_t*>(args.x);
  const auto* weight = static_cast<const std::uint16_t*>(args.gate_up);
  auto* h = static_cast<std::uint16_t*>(args.h);
  ForEachPlace(args, [&](std::int64_t expert, std::int64_t row, std::int64_t place, std::int64_t) {
    const std::uint16_t* gate = weight + expert * 2 * args.width * args.d;
    const std::uint16_t* up = gate + args.width * args.d;
    for (std::int64_t i = 0; i < args.width; ++i) {
      const float g = RoundToBf16(Dot(gate + i * args.d, x + row * args.d, args.d));
      const float u = RoundToBf16(Dot(up + i * args.d, x + row * args.d, args.d));
      h[place * args.width + i] = Bf16OfFloat(RoundToBf16(g / (1.0f + std::exp(-g))) * u);
    }
  });
}

void ExpertDownCpu(const ExpertProductsArgs& args) {
  const auto* h = static_cast<const std::uint16_t*>(args.h);
  const auto* weight = static_cast<const std::uint16_t*>(args.down);
  auto* y = static_cast<std::uint16_t*>(args.y);
  const bool one_sum = SharedPlaces(args) < args.shared;
  std::vector<float> sums(static_cast<std::size_t>(one_sum ? args.rows * args.d : 0));
  ForEachPlace(
      args, [&](std::int64_t expert, std::int64_t row, std::int64_t h_place, std::int64_t y_place) {
        const std::uint16_t* down = weight + expert * args.d * args.width;
        for (std::int64_t i = 0; i < args.d; ++i) {
          float sum = Dot(down + i * args.width, h + h_place * args.width, args.width);
          if (one_sum && expert >= args.experts) sum = sums[row * args.d + i] += sum;
          y[y_place * args.d + i] = Bf16OfFloat(sum);
        }
      });
}

}  // namespace penstock
