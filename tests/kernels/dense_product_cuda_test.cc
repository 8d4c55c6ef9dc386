#include <algorithm>
#include <cmath>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/bf16.h"
#include "kernels/dense_product.h"
#include "tests/kernels/device_array.h"

namespace penstock {
namespace {

struct ProductShape {
  std::int64_t m, n, splits;
};

std::vector<std::uint16_t> RandomBf16(std::int64_t count, float scale, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<std::uint16_t> values(count);
  for (auto& value : values) value = Bf16OfFloat(normal(random));
  return values;
}

class DenseProductCudaTest : public testing::TestWithParam<ProductShape> {
 protected:
  DenseProductCudaTest()
      : weight_(RandomBf16(GetParam().m * GetParam().n,
                           1.0f / std::sqrt(static_cast<float>(GetParam().n)), 1)),
        device_weight_(weight_) {
    has_map_ = MakeTileMap(device_weight_.get(), 1, GetParam().m, GetParam().n, &map_);
  }

  DenseProductArgs Args(std::int64_t rows, Element y_element) const {
    DenseProductArgs args;
    args.rows = rows;
    args.n = GetParam().n;
    args.m = GetParam().m;
    args.splits = GetParam().splits;
    args.y_element = y_element;
    return args;
  }

  // Every element written: outputs start as NaN.
  template <typename T>
  std::vector<T> OnDevice(const std::vector<std::uint16_t>& x, Element y_element) const {
    const std::int64_t rows = static_cast<std::int64_t>(x.size()) / GetParam().n;
    const std::int64_t size = GetParam().splits * rows * GetParam().m;
    const DeviceArray<std::uint16_t> device_x(x);
    const DeviceArray<T> y(size);
    PENSTOCK_CHECK_CUDA(cudaMemset(y.get(), 0xff, size * sizeof(T)));
    DenseProductArgs args = Args(rows, y_element);
    args.x = device_x.get();
    args.weight = device_weight_.get();
    if (has_map_) args.weight_map = &map_;
    args.y = y.get();
    DenseProductCuda(args, nullptr);
    PENSTOCK_CHECK_CUDA(cudaGetLastError());
    PENSTOCK_CHECK_CUDA(cudaDeviceSynchronize());
    return y.Download();
  }

  template <typename T>
  std::vector<T> OnCpu(const std::vector<std::uint16_t>& x, Element y_element) const {
    const std::int64_t rows = static_cast<std::int64_t>(x.size()) / GetParam().n;
    std::vector<T> y(GetParam().splits * rows * GetParam().m);
    DenseProductArgs args = Args(rows, y_element);
    args.x = x.data();
    args.weight = weight_.data();
    args.y = y.data();
    DenseProductCpu(args);
    return y;
  }

  std::vector<std::uint16_t> weight_;
  DeviceArray<std::uint16_t> device_weight_;
  TileMap map_;
  bool has_map_ = false;
};

float Value(float y) { return y; }
float Value(std::uint16_t y) { return FloatOfBf16(y); }

template <typename T>
void ExpectClose(const std::vector<T>& actual, const std::vector<T>& wanted, float tolerance,
                 std::int64_t rows) {
  ASSERT_EQ(actual.size(), wanted.size());
  int wrong = 0;
  for (std::size_t i = 0; i < actual.size() && wrong < 5; ++i) {
    const float a = Value(actual[i]), w = Value(wanted[i]);
    if (std::fabs(a - w) <= tolerance * std::fabs(w) + 3e-5f) continue;
    ADD_FAILURE() << rows << " rows, at " << i << ": " << a << ", wanted " << w;
    ++wrong;
  }
}

// Every number of rows; for a head as wide as a vocabulary one for each shape of tile.
std::vector<std::int64_t> RowsOf(const ProductShape& shape) {
  if (shape.m > 10'000) return {1, 9, 33, 65, 129, 256};
  return {0, 1, 2, 3, 7, 8, 9, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256};
}

TEST_P(DenseProductCudaTest, AgreesWithItsTwinForEveryNumberOfRows) {
  for (const std::int64_t rows : RowsOf(GetParam())) {
    const std::vector<std::uint16_t> x = RandomBf16(rows * GetParam().n, 1.0f, 2);
    // fp32: only the order of the sum differs. bf16: that may move a value over a rounding border.
    ExpectClose(OnDevice<float>(x, Element::kF32), OnCpu<float>(x, Element::kF32), 1e-5f, rows);
    ExpectClose(OnDevice<std::uint16_t>(x, Element::kBF16), OnCpu<std::uint16_t>(x, Element::kBF16),
                1.0f / 128, rows);
  }
}

TEST_P(DenseProductCudaTest, GivesARowTheSameBitsAloneAndInEveryBatch) {
  const std::int64_t most = 256, n = GetParam().n, m = GetParam().m;
  const std::vector<std::uint16_t> x = RandomBf16(most * n, 1.0f, 3);
  const std::vector<float> all = OnDevice<float>(x, Element::kF32);
  for (const std::int64_t rows : {1, 8, 9, 33, 64, 65, 200}) {
    const std::int64_t first = most - rows;
    const std::vector<float> some =
        OnDevice<float>({x.begin() + first * n, x.end()}, Element::kF32);
    for (std::int64_t s = 0; s < GetParam().splits; ++s) {
      EXPECT_TRUE(std::equal(some.begin() + s * rows * m, some.begin() + (s + 1) * rows * m,
                             all.begin() + (s * most + first) * m))
          << "the last " << rows << ", part " << s;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, DenseProductCudaTest,
                         testing::Values(ProductShape{.m = 64, .n = 64, .splits = 1},
                                         ProductShape{.m = 96, .n = 200, .splits = 1},
                                         ProductShape{.m = 33, .n = 72, .splits = 1},
                                         ProductShape{.m = 130, .n = 576, .splits = 2},
                                         ProductShape{.m = 128, .n = 136, .splits = 4},
                                         ProductShape{.m = 700, .n = 512, .splits = 4},
                                         ProductShape{.m = 33'801, .n = 64, .splits = 1},
                                         ProductShape{.m = 33'808, .n = 72, .splits = 1},
                                         ProductShape{.m = 37, .n = 30, .splits = 1}),
                         [](const testing::TestParamInfo<ProductShape>& info) {
                           return "m" + std::to_string(info.param.m) + "n" +
                                  std::to_string(info.param.n) + "splits" +
                                  std::to_string(info.param.splits);
                         });

}  // namespace
}  // namespace penstock
