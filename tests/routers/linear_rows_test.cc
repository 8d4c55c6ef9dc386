#include "routers/linear_rows.h"

#include <string>
#include <tuple>
#include <vector>

#include "ATen/ATen.h"
#include "gtest/gtest.h"
#include "tests/routers/sample_routers.h"

namespace penstock {
namespace {

using sample::Normal;
using sample::SameBits;

class LinearRowsTest : public testing::TestWithParam<at::ScalarType> {};

TEST_P(LinearRowsTest, TiledRowsDoNotDependOnNumberOrPlace) {
  for (const auto& [m, n] :
       {std::pair{4, 7}, std::pair{33, 100}, std::pair{256, 2048}, std::pair{5, 13}}) {
    const at::Tensor x = Normal({70, n}, 1).to(GetParam());
    const at::Tensor weight = Normal({m, n}, 2).to(GetParam());
    const at::Tensor all = LinearRows(x, weight, RowMode::kTiled);
    ASSERT_EQ(all.scalar_type(), GetParam());
    for (std::int64_t count = 1; count <= 70; ++count) {
      ASSERT_TRUE(SameBits(LinearRows(x.narrow(0, 70 - count, count), weight, RowMode::kTiled),
                           all.narrow(0, 70 - count, count)))
          << m << " by " << n << ", the last " << count << " rows";
    }
  }
}

TEST_P(LinearRowsTest, TiledRoundsASumInFp32Once) {
  const at::Tensor x = Normal({9, 300}, 1).to(GetParam());
  const at::Tensor weight = Normal({40, 300}, 2).to(GetParam());
  const at::Tensor exact = at::matmul(x.to(at::kDouble), weight.to(at::kDouble).t());
  const at::Tensor got = LinearRows(x, weight, RowMode::kTiled).to(at::kDouble);
  // Half a unit in the last place, and what sums in fp32 lose.
  const double half_unit = GetParam() == at::kFloat  ? 0.0
                           : GetParam() == at::kHalf ? 0x1p-11
                                                     : 0x1p-8;
  EXPECT_TRUE(((got - exact).abs() <= exact.abs() * half_unit + 2e-5).all().item<bool>());
}

TEST_P(LinearRowsTest, ModesAgreeWithinRounding) {
  const at::Tensor x = Normal({9, 300}, 1).to(GetParam());
  const at::Tensor weight = Normal({40, 300}, 2).to(GetParam());
  const double tolerance = GetParam() == at::kFloat ? 1e-4 : 0.6;
  EXPECT_LT((LinearRows(x, weight, RowMode::kTiled) - LinearRows(x, weight, RowMode::kNative))
                .to(at::kFloat)
                .abs()
                .max()
                .item<double>(),
            tolerance);
}

TEST_P(LinearRowsTest, TakesNoRowsSlicesAndTransposes) {
  const at::Tensor x = Normal({12, 40}, 1).to(GetParam());
  const at::Tensor weight = Normal({6, 20}, 2).to(GetParam());
  EXPECT_EQ(LinearRows(x.narrow(0, 0, 0).narrow(1, 0, 20), weight, RowMode::kTiled).sizes(),
            at::IntArrayRef({0, 6}));
  const at::Tensor slice = x.narrow(1, 10, 20);
  const at::Tensor expected = LinearRows(slice.contiguous(), weight, RowMode::kTiled);
  EXPECT_TRUE(SameBits(LinearRows(slice, weight, RowMode::kTiled), expected));
  const at::Tensor turned = slice.t().contiguous().t();
  EXPECT_TRUE(SameBits(LinearRows(turned, weight.t().contiguous().t(), RowMode::kTiled), expected));
}

INSTANTIATE_TEST_SUITE_P(Dtypes, LinearRowsTest,
                         testing::Values(at::kFloat, at::kBFloat16, at::kHalf),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

TEST(NativeProductsTest, SelfTestSeesThatFp32DependsOnTheRowCount) {
  // Seen on every BLAS tried: one row is a matrix-vector product with sums of its own order.
  EXPECT_FALSE(NativeProductsAreRowInvariant(256, 2048, at::kFloat));
}

TEST(NativeProductsTest, SelfTestAgreesWithALook) {
  // The verdict is the machine's; that it is the right one can be checked.
  for (const auto& [m, n] : {std::pair{16, 576}, std::pair{256, 2048}, std::pair{64, 64}}) {
    const at::Tensor x = Normal({65, n}, 1).to(at::kBFloat16);
    const at::Tensor weight = Normal({m, n}, 2).to(at::kBFloat16);
    bool same = true;
    const at::Tensor all = LinearRows(x, weight, RowMode::kNative);
    for (std::int64_t row = 0; row < 65; ++row) {
      same &= SameBits(LinearRows(x.narrow(0, row, 1), weight, RowMode::kNative),
                       all.narrow(0, row, 1));
    }
    if (NativeProductsAreRowInvariant(m, n, at::kBFloat16)) {
      EXPECT_TRUE(same) << m << " by " << n;
    }
  }
}

}  // namespace
}  // namespace penstock
