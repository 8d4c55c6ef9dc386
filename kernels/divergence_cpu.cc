#include "kernels/divergence.h"
#include "kernels/isa_builds.h"

namespace penstock {

PENSTOCK_DECLARE_BUILDS(float Divergence(const float* a, const float* b, std::int64_t count))

float DivergenceCpu(const float* a, const float* b, std::int64_t count) {
  PENSTOCK_CALL_BUILD(Divergence, a, b, count);
  return 0;
}

}  // namespace penstock
