#include "kernels/isa_builds.h"
#include "kernels/matmul.h"

namespace penstock {

PENSTOCK_DECLARE_BUILDS(void MatMul(const MatMulArgs& args, std::int64_t first, std::int64_t last))

void MatMulCpu(const MatMulArgs& args, std::int64_t first, std::int64_t last) {
  PENSTOCK_CALL_BUILD(MatMul, args, first, last);
}

}  // namespace penstock
