// CompareRoutes on the GPU against its CPU twin.
#include <cmath>

#include "gtest/gtest.h"
#include "kernels/compare_routes.h"
#include "tests/kernels/compared_routes.h"
#include "tests/kernels/cuda_twins.h"
#include "tests/kernels/device_array.h"

namespace penstock {
namespace {

void RunOnDevice(ComparedRoutes& compared) {
  CompareRoutesArgs args = compared.Args();
  const DeviceArray<std::int32_t> num_rows(1, compared.num_rows), row_routers(compared.row_routers),
      failed_layer(compared.failed_layer), served(compared.served), expert_ids(compared.expert_ids),
      failed(compared.failed), expert_rows(compared.expert_rows);
  const DeviceArray<std::uint8_t> counted(compared.counted);
  const DeviceArray<float> logits(compared.logits);
  const DeviceArray<RouteAgreement> agreements(compared.agreements);
  args.num_rows = num_rows.get();
  args.row_routers = row_routers.get();
  args.counted = counted.get();
  args.failed_layer = failed_layer.get();
  args.served = served.get();
  args.expert_ids = expert_ids.get();
  args.logits = logits.get();
  args.failed = failed.get();
  args.agreements = agreements.get();
  args.expert_rows = expert_rows.get();
  CompareRoutesCuda(args, nullptr);
  ExpectNoCudaError("CompareRoutesCuda");
  compared.agreements = agreements.Download();
  compared.expert_rows = expert_rows.Download();
}

// The sum of 256 terms in another order, exponentials and logarithms within two units in the last
// place: some 16 roundings of 2^-24 on a path. Entropy sums to at most ln 256, KL's terms to at
// most the largest difference of two logits, which for normal ones of spread s stays under 10 s.
double Tolerance(std::int32_t rows, double largest) {
  return rows * 16 * std::ldexp(std::max(largest, 1.0), -24);
}

TEST(CompareRoutesCuda, CountsWhatItsTwinCounts) {
  struct Case {
    std::int64_t experts, k;
    float scale;
  };
  for (const Case& c :
       {Case{60, 4, 2}, Case{60, 4, 100}, Case{1, 1, 1}, Case{33, 2, 0.1f}, Case{256, 16, 5}}) {
    for (const int rows : {0, 1, 2, 3, 7, 8, 9, 63, 64, 65, 255, 256}) {
      SCOPED_TRACE(testing::Message() << c.experts << " experts, " << rows << " rows");
      ComparedRoutes want(c.experts, c.k, rows, c.scale), got = want;
      CompareRoutesCpu(want.Args());
      RunOnDevice(got);
      EXPECT_EQ(got.expert_rows, want.expert_rows);
      ASSERT_EQ(got.agreements.size(), want.agreements.size());
      for (std::size_t i = 0; i < want.agreements.size(); ++i) {
        const RouteAgreement &a = got.agreements[i], &b = want.agreements[i];
        EXPECT_EQ(a.rows, b.rows) << i;
        EXPECT_EQ(a.kl_rows, b.kl_rows) << i;
        EXPECT_EQ(a.overlap, b.overlap) << i;
        EXPECT_EQ(a.failed, b.failed) << i;
        EXPECT_NEAR(a.kl, b.kl, Tolerance(b.kl_rows, 10 * c.scale)) << i;
        EXPECT_NEAR(a.entropy, b.entropy, Tolerance(b.rows, std::log(256))) << i;
      }
    }
  }
}

TEST(CompareRoutesCuda, GivesTheSameBitsAgain) {
  ComparedRoutes first(60, 4, 256, 2), second = first;
  RunOnDevice(first);
  RunOnDevice(second);
  for (std::size_t i = 0; i < first.agreements.size(); ++i) {
    EXPECT_EQ(first.agreements[i].kl, second.agreements[i].kl) << i;
    EXPECT_EQ(first.agreements[i].entropy, second.agreements[i].entropy) << i;
  }
}

}  // namespace
}  // namespace penstock
