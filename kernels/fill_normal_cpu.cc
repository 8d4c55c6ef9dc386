#include <algorithm>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/fill_normal.h"

namespace penstock {

void FillNormalCpu(const FillNormalArgs& args) {
  std::vector<float> values(static_cast<std::size_t>(args.count));
  FillNormal(args.seed, args.stream, args.std, values);
  std::transform(values.begin(), values.end(), static_cast<std::uint16_t*>(args.values),
                 Bf16OfFloat);
}

}  // namespace penstock
