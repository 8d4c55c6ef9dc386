#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/compare_routes.h"
#include "kernels/divergence.h"
#include "kernels/entropy.h"

namespace penstock {
namespace {

std::vector<float> Probabilities(const float* logits, std::int64_t experts) {
  const float highest = *std::max_element(logits, logits + experts);
  std::vector<float> p;
  float sum = 0;
  for (std::int64_t e = 0; e < experts; ++e) {
    p.push_back(std::exp(logits[e] - highest));
    sum += p.back();
  }
  for (float& value : p) value /= sum;
  return p;
}

std::int32_t Overlap(const std::int32_t* a, const std::int32_t* b, std::int64_t k) {
  std::int32_t both = 0;
  for (std::int64_t i = 0; i < k; ++i) both += std::find(b, b + k, a[i]) != b + k;
  return both;
}

RouteAgreement Compare(const CompareRoutesArgs& args, std::int64_t layer, int serving, int shadow,
                       std::int32_t* expert_rows) {
  const ShadowRouter &a = args.routers.routers[serving], &b = args.routers.routers[shadow];
  RouteAgreement agreement;
  for (std::int64_t row = 0; row < *args.num_rows; ++row) {
    const std::int32_t failed = args.failed_layer[row];
    if (args.row_routers[row] != a.serves || args.counted[row] == 0) continue;
    if (failed >= 0 && failed <= args.first_layer + layer) continue;
    const std::int64_t at = layer * args.rows + row, of_a = serving * args.router_rows + at,
                       of_b = shadow * args.router_rows + at;
    if (args.failed[of_b] >= 0) {
      ++agreement.failed;
      continue;
    }
    ++agreement.rows;
    const std::int32_t* chosen = args.expert_ids + of_b * args.k;
    agreement.overlap +=
        Overlap(args.served + (layer * args.served_rows + row) * args.k, chosen, args.k);
    for (std::int64_t i = 0; i < args.k; ++i) ++expert_rows[chosen[i]];
    if (b.has_logits == 0) {
      agreement.entropy += std::log(static_cast<float>(args.k));
      continue;
    }
    const float* logits = args.logits + of_b * args.experts;
    agreement.entropy += EntropyCpu(Probabilities(logits, args.experts).data(), args.experts);
    if (a.has_logits == 0 || args.failed[of_a] >= 0) continue;
    ++agreement.kl_rows;
    agreement.kl += DivergenceCpu(args.logits + of_a * args.experts, logits, args.experts);
  }
  return agreement;
}

}  // namespace

void CompareRoutesCpu(const CompareRoutesArgs& args) {
  const ShadowRouters& routers = args.routers;
  std::int64_t pair = 0;
  for (std::int64_t layer = 0; layer < args.layers; ++layer) {
    for (int serving = 0; serving < routers.num_serving; ++serving) {
      for (int shadow = 0; shadow < routers.num_routers; ++shadow, ++pair) {
        args.agreements[pair] = {};
        if ((routers.routers[shadow].asked_of >> serving & 1u) == 0) continue;
        std::int32_t* expert_rows = args.expert_rows + pair * args.experts;
        std::fill(expert_rows, expert_rows + args.experts, 0);
        args.agreements[pair] = Compare(args, layer, serving, shadow, expert_rows);
      }
    }
  }
}

}  // namespace penstock
