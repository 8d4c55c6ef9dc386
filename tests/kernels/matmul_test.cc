#include "kernels/matmul.h"

#include <cmath>

#include "tests/kernels/kernel_arrays.h"

namespace penstock {
namespace {

class MatMulTest : public KernelTest {
 protected:
  // x [rows, n], weight [m, n], as one product.
  MatMulArgs Args(const Array& x, std::int64_t rows, const Array& weight, std::int64_t n,
                  std::int64_t m, Array& y) {
    return {.element = element(),
            .x = x.at(0),
            .x_stride = n,
            .num_rows = rows,
            .weight = weight.at(0),
            .n = n,
            .m = m,
            .y_element = element(),
            .y = y.bytes(),
            .y_stride = m};
  }
};

TEST_P(MatMulTest, AgreesWithSumsInDoublePrecision) {
  for (const auto& [rows, n, m] : std::vector<std::array<std::int64_t, 3>>{{1, 1, 1},
                                                                           {1, 576, 33},
                                                                           {2, 31, 17},
                                                                           {3, 64, 16},
                                                                           {4, 100, 20},
                                                                           {5, 7, 3},
                                                                           {9, 1408, 5},
                                                                           {70, 45, 50}}) {
    const Array x = Array::Random(element(), rows * n, 1),
                weight = Array::Random(element(), m * n, 2);
    const Array bias = Array::Random(element(), m, 3);
    Array y(element(), rows * m);
    MatMulArgs args = Args(x, rows, weight, n, m, y);
    args.bias = bias.at(0);
    MatMulCpu(args, 0, m);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < m; ++c) {
        double sum = bias.Get(c), magnitude = std::fabs(bias.Get(c));
        for (std::int64_t i = 0; i < n; ++i) {
          const double term = static_cast<double>(x.Get(r * n + i)) * weight.Get(c * n + i);
          sum += term;
          magnitude += std::fabs(term);
        }
        EXPECT_NEAR(y.Get(r * m + c), sum, Tolerance() * std::fabs(sum) + 1e-6 * magnitude)
            << rows << " x " << n << " x " << m << " at " << r << ", " << c;
      }
    }
  }
}

TEST_P(MatMulTest, GivesARowTheSameBitsAtEveryPlaceAndRowCount) {
  for (const std::int64_t n : {7, 32, 96, 577, 1408}) {
    const std::int64_t m = 37, most = 65;
    const Array weight = Array::Random(element(), m * n, 5),
                x = Array::Random(element(), most * n, 6);
    Array all(element(), most * m);
    MatMulCpu(Args(x, most, weight, n, m, all), 0, m);
    for (std::int64_t rows = 1; rows < most; rows += rows < 9 ? 1 : 7) {
      Array y(element(), rows * m);
      MatMulArgs args = Args(x, rows, weight, n, m, y);
      args.x = x.at((most - rows) * n);
      MatMulCpu(args, 0, m);
      ASSERT_EQ(y.Bits(0, rows * m), all.Bits((most - rows) * m, rows * m))
          << n << ", " << rows << " rows";
    }
  }
}

TEST_P(MatMulTest, GivesTheSameBitsHoweverColumnsAreSplit) {
  const std::int64_t n = 130, m = 77, rows = 6;
  const Array weight = Array::Random(element(), m * n, 7),
              x = Array::Random(element(), rows * n, 8);
  Array whole(element(), rows * m), parts(element(), rows * m);
  MatMulCpu(Args(x, rows, weight, n, m, whole), 0, m);
  for (std::int64_t first = 0; first < m; first += 9) {
    MatMulCpu(Args(x, rows, weight, n, m, parts), first, std::min(m, first + 9));
  }
  EXPECT_EQ(parts.Bits(0, rows * m), whole.Bits(0, rows * m));
}

TEST_P(MatMulTest, TakesTheRowsThatItIsTold) {
  const std::int64_t n = 20, m = 18;
  const Array weight = Array::Random(element(), m * n, 9), x = Array::Random(element(), 5 * n, 10);
  const std::int32_t rows[] = {4, 0, 4, 2, 1, 1, 3};
  Array all(element(), 5 * m), y(element(), 7 * m);
  MatMulCpu(Args(x, 5, weight, n, m, all), 0, m);
  MatMulArgs args = Args(x, 7, weight, n, m, y);
  args.rows = rows;
  MatMulCpu(args, 0, m);
  for (std::int64_t r = 0; r < 7; ++r) EXPECT_EQ(y.Bits(r * m, m), all.Bits(rows[r] * m, m)) << r;
}

TEST_P(MatMulTest, WritesNothingBesideItsColumns) {
  const std::int64_t n = 16, m = 10;
  const Array weight = Array::Random(element(), m * n, 11), x = Array::Random(element(), 4 * n, 12);
  Array y(element(), 4 * (m + 2));
  for (std::int64_t i = 0; i < y.size(); ++i) y.Set(i, -7);
  MatMulArgs args = Args(x, 4, weight, n, m, y);
  args.y_stride = m + 2;
  MatMulCpu(args, 3, 8);
  for (std::int64_t r = 0; r < 4; ++r) {
    for (std::int64_t c = 0; c < m + 2; ++c)
      EXPECT_EQ(y.Get(r * (m + 2) + c) == -7, c < 3 || c >= 8) << r << ", " << c;
  }
}

TEST_P(MatMulTest, PassesOnNaNAndInfinity) {
  const std::int64_t n = 40;
  Array x = Array::Random(element(), 2 * n, 13), weight = Array::Random(element(), n, 14),
        y(element(), 2);
  x.Set(3, std::nanf(""));
  x.Set(n + 5, INFINITY);
  MatMulCpu(Args(x, 2, weight, n, 1, y), 0, 1);
  EXPECT_TRUE(std::isnan(y.Get(0)));
  EXPECT_TRUE(std::isinf(y.Get(1)));
}

PENSTOCK_INSTANTIATE_KERNEL_TEST(MatMulTest);

}  // namespace
}  // namespace penstock
