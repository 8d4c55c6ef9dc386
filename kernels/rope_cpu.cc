#include <cmath>

#include "kernels/isa_builds.h"
#include "kernels/rope.h"

namespace penstock {

PENSTOCK_DECLARE_BUILDS(void RoundAll(Element element, float* values, std::int64_t count);
                        void Rope(const RopeArgs& args, std::int64_t first, std::int64_t last))

namespace {

void RoundAll(Element element, float* values, std::int64_t count) {
  PENSTOCK_CALL_BUILD(RoundAll, element, values, count);
}

}  // namespace

void RopeTableCpu(const RopeTableArgs& args, std::int64_t first, std::int64_t last) {
  for (std::int64_t row = first; row < last; ++row) {
    float* cos = args.cos + row * args.half;
    float* sin = args.sin + row * args.half;
    for (std::int64_t i = 0; i < args.half; ++i) {
      const float angle = static_cast<float>(args.positions[row]) * args.inverse_frequencies[i];
      cos[i] = std::cos(angle);
      sin[i] = std::sin(angle);
    }
    RoundAll(args.element, cos, args.half);
    RoundAll(args.element, sin, args.half);
  }
}

void RopeCpu(const RopeArgs& args, std::int64_t first, std::int64_t last) {
  PENSTOCK_CALL_BUILD(Rope, args, first, last);
}

}  // namespace penstock
