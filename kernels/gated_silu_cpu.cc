#include "kernels/gated_silu.h"
#include "kernels/isa_builds.h"

namespace penstock {

PENSTOCK_DECLARE_BUILDS(void GatedSilu(const GatedSiluArgs& args, std::int64_t first,
                                       std::int64_t last))

void GatedSiluCpu(const GatedSiluArgs& args, std::int64_t first, std::int64_t last) {
  PENSTOCK_CALL_BUILD(GatedSilu, args, first, last);
}

}  // namespace penstock
