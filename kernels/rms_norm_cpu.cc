#include "kernels/isa_builds.h"
#include "kernels/rms_norm.h"

namespace penstock {

PENSTOCK_DECLARE_BUILDS(void RmsNorm(const RmsNormArgs& args, std::int64_t first,
                                     std::int64_t last))

void RmsNormCpu(const RmsNormArgs& args, std::int64_t first, std::int64_t last) {
  PENSTOCK_CALL_BUILD(RmsNorm, args, first, last);
}

}  // namespace penstock
