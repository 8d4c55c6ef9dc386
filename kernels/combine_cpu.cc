#include "kernels/combine.h"
#include "kernels/isa_builds.h"

namespace penstock {

PENSTOCK_DECLARE_BUILDS(void Combine(const CombineArgs& args, std::int64_t first,
                                     std::int64_t last))

void CombineCpu(const CombineArgs& args, std::int64_t first, std::int64_t last) {
  PENSTOCK_CALL_BUILD(Combine, args, first, last);
}

}  // namespace penstock
