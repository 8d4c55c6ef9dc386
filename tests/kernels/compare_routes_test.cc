#include "kernels/compare_routes.h"

#include <cmath>
#include <set>

#include "gtest/gtest.h"
#include "tests/kernels/compared_routes.h"

namespace penstock {
namespace {

// Softmax's logarithm, in fp64.
std::vector<double> LogSoftmax(const float* logits, std::int64_t experts) {
  double sum = 0;
  for (std::int64_t e = 0; e < experts; ++e) sum += std::exp(double{logits[e]});
  std::vector<double> result;
  for (std::int64_t e = 0; e < experts; ++e) result.push_back(logits[e] - std::log(sum));
  return result;
}

TEST(CompareRoutes, CountsWhatPlainArithmeticCounts) {
  for (const std::int64_t experts : {1, 10, 60, 256}) {
    ComparedRoutes compared(experts, std::min<std::int64_t>(experts, 4), 65, 2);
    CompareRoutesCpu(compared.Args());
    const ShadowRouters routers = ComparedRoutes::Routers();
    const std::int64_t k = compared.k, router_rows = ComparedRoutes::kLayers * compared.rows;
    std::size_t pair = 0;
    for (std::int64_t layer = 0; layer < ComparedRoutes::kLayers; ++layer) {
      for (int a = 0; a < routers.num_serving; ++a) {
        for (int b = 0; b < routers.num_routers; ++b, ++pair) {
          SCOPED_TRACE(testing::Message() << layer << ": " << b << " asked of " << a);
          const RouteAgreement& got = compared.agreements[pair];
          const std::int32_t* slots = compared.expert_rows.data() + pair * std::size_t(experts);
          if ((routers.routers[b].asked_of >> a & 1u) == 0) {
            EXPECT_EQ(got.rows, 0);
            EXPECT_EQ(slots[0], -7);
            continue;
          }
          RouteAgreement want;
          std::vector<std::int32_t> want_slots(static_cast<std::size_t>(experts));
          for (std::int64_t row = 0; row < 65; ++row) {
            const auto r = static_cast<std::size_t>(row);
            const std::int32_t failed = compared.failed_layer[r];
            if (compared.row_routers[r] != routers.routers[a].serves || !compared.counted[r] ||
                (failed >= 0 && failed <= 6 + layer)) {
              continue;
            }
            const std::int64_t at = layer * compared.rows + row;
            if (compared.failed[std::size_t(b * router_rows + at)] >= 0) {
              ++want.failed;
              continue;
            }
            ++want.rows;
            std::set<std::int32_t> served;
            for (std::int64_t i = 0; i < k; ++i)
              served.insert(compared.served[std::size_t(at * k + i)]);
            for (std::int64_t i = 0; i < k; ++i) {
              const auto id = std::size_t((b * router_rows + at) * k + i);
              want.overlap += served.contains(compared.expert_ids[id]);
              ++want_slots[static_cast<std::size_t>(compared.expert_ids[id])];
            }
            if (!routers.routers[b].has_logits) {
              want.entropy += std::log(double(k));
              continue;
            }
            const std::vector<double> of_b =
                LogSoftmax(compared.logits.data() + (b * router_rows + at) * experts, experts);
            for (const double p : of_b) want.entropy -= std::exp(p) * p;
            if (!routers.routers[a].has_logits ||
                compared.failed[std::size_t(a * router_rows + at)] >= 0) {
              continue;
            }
            ++want.kl_rows;
            const std::vector<double> of_a =
                LogSoftmax(compared.logits.data() + (a * router_rows + at) * experts, experts);
            for (std::size_t e = 0; e < of_a.size(); ++e)
              want.kl += std::exp(of_a[e]) * (of_a[e] - of_b[e]);
          }
          EXPECT_GT(got.rows, 0);
          EXPECT_EQ(got.rows, want.rows);
          EXPECT_EQ(got.kl_rows, want.kl_rows);
          EXPECT_EQ(got.overlap, want.overlap);
          EXPECT_EQ(got.failed, want.failed);
          EXPECT_EQ(std::vector<std::int32_t>(slots, slots + experts), want_slots);
          EXPECT_NEAR(got.kl, want.kl, 1e-5 * want.kl_rows);
          EXPECT_NEAR(got.entropy, want.entropy, 1e-5 * want.rows);
        }
      }
    }
  }
}

TEST(CompareRoutes, ARouterAgreesWithItself) {
  ComparedRoutes compared(60, 4, 33, 2);
  CompareRoutesArgs args = compared.Args();
  // The second router is the first under another name.
  const std::int64_t all = ComparedRoutes::kLayers * compared.rows;
  std::copy_n(compared.logits.begin(), all * 60, compared.logits.begin() + all * 60);
  std::copy_n(compared.served.begin(), all * 4, compared.expert_ids.begin());
  std::copy_n(compared.served.begin(), all * 4, compared.expert_ids.begin() + all * 4);
  std::fill(compared.failed.begin(), compared.failed.end(), -1);
  CompareRoutesCpu(args);
  const RouteAgreement& agreement = compared.agreements[1];
  EXPECT_GT(agreement.rows, 3);
  EXPECT_EQ(agreement.overlap, 4 * agreement.rows);
  EXPECT_EQ(agreement.kl_rows, agreement.rows);
  EXPECT_EQ(agreement.kl, 0);
}

}  // namespace
}  // namespace penstock
