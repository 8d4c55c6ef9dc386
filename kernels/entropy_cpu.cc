#include "kernels/entropy.h"
#include "kernels/isa_builds.h"

namespace penstock {

PENSTOCK_DECLARE_BUILDS(float Entropy(const float* probabilities, std::int64_t count))

float EntropyCpu(const float* probabilities, std::int64_t count) {
  PENSTOCK_CALL_BUILD(Entropy, probabilities, count);
  return 0;
}

}  // namespace penstock
