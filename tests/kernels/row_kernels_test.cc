// Kernels that work row by row: against plain arithmetic, and for bits that don't depend on a row's
// place.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/combine.h"
#include "kernels/divergence.h"
#include "kernels/entropy.h"
#include "kernels/gated_silu.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "tests/kernels/kernel_arrays.h"

namespace penstock {
namespace {

using RowKernels = KernelTest;

double Silu(double x) { return x / (1 + std::exp(-x)); }

TEST_P(RowKernels, RmsNormAddsNormalizesAndRounds) {
  for (const std::int64_t d : {1, 15, 16, 100, 576}) {
    const std::int64_t rows = 3;
    Array x = Array::Random(element(), rows * d, 1), before = x;
    const Array delta = Array::Random(element(), rows * d, 2),
                weight = Array::Random(element(), d, 3);
    Array y(element(), rows * d);
    RmsNormCpu({.element = element(),
                .x = x.bytes(),
                .delta = delta.at(0),
                .weight = weight.at(0),
                .y = y.bytes(),
                .d = d,
                .epsilon = 1e-6f},
               0, rows);
    for (std::int64_t r = 0; r < rows; ++r) {
      double squares = 0;
      for (std::int64_t i = r * d; i < (r + 1) * d; ++i) {
        ASSERT_EQ(x.Get(i), RoundTo(element(), before.Get(i) + delta.Get(i)));
        squares += static_cast<double>(x.Get(i)) * x.Get(i);
      }
      const double scale = 1 / std::sqrt(squares / static_cast<double>(d) + 1e-6);
      for (std::int64_t i = 0; i < d; ++i) {
        const double want = x.Get(r * d + i) * scale * weight.Get(i);
        ASSERT_NEAR(y.Get(r * d + i), want, 2 * Tolerance() * std::fabs(want) + 1e-7)
            << d << " at " << r << ", " << i;
      }
    }
  }
}

TEST_P(RowKernels, RmsNormWithoutDeltaLeavesItsInput) {
  const Array x = Array::Random(element(), 40, 4), weight = Array::Random(element(), 40, 5);
  Array input = x, y(element(), 40);
  RmsNormCpu({.element = element(),
              .x = input.bytes(),
              .weight = weight.at(0),
              .y = y.bytes(),
              .d = 40,
              .epsilon = 1e-6f},
             0, 1);
  EXPECT_EQ(input.Bits(0, 40), x.Bits(0, 40));
}

TEST_P(RowKernels, GatedSiluRoundsTwice) {
  const std::int64_t rows = 4, width = 37;
  const Array gate = Array::Random(element(), rows * width, 6, 4),
              up = Array::Random(element(), rows * width, 7);
  Array y(element(), rows * width);
  GatedSiluCpu({.element = element(),
                .gate = gate.at(0),
                .up = up.at(0),
                .stride = width,
                .y = y.bytes(),
                .y_stride = width,
                .width = width},
               0, rows);
  for (std::int64_t i = 0; i < rows * width; ++i) {
    // Below fp16's normal range the unit is 2^-24.
    const double want = Silu(gate.Get(i)) * up.Get(i);
    EXPECT_NEAR(y.Get(i), want, 2 * Tolerance() * std::fabs(want) + 1.2e-7) << i;
  }
}

TEST_P(RowKernels, GatedSiluHoldsAtTheEnds) {
  const float values[] = {-200, -88, 0, 88, 200};
  Array gate(element(), 5), up(element(), 5), y(element(), 5);
  for (int i = 0; i < 5; ++i) {
    gate.Set(i, values[i]);
    up.Set(i, 1);
  }
  GatedSiluCpu({.element = element(),
                .gate = gate.at(0),
                .up = up.at(0),
                .stride = 5,
                .y = y.bytes(),
                .y_stride = 5,
                .width = 5},
               0, 1);
  EXPECT_NEAR(y.Get(0), 0, 1e-30);
  EXPECT_NEAR(y.Get(1), 0, 1e-30);
  EXPECT_EQ(y.Get(2), 0);
  EXPECT_EQ(y.Get(3), 88);
  EXPECT_EQ(y.Get(4), 200);
}

TEST_P(RowKernels, RopeTurnsPairsHalfAHeadApart) {
  const std::int64_t rows = 3, heads = 2, half = 9;
  const std::int32_t positions[] = {0, 5, 4000};
  std::vector<float> frequencies, cos(rows * half), sin(rows * half);
  for (int i = 0; i < half; ++i)
    frequencies.push_back(std::pow(10000.0f, -static_cast<float>(i) / half));
  RopeTableCpu({.element = element(),
                .positions = positions,
                .inverse_frequencies = frequencies.data(),
                .half = half,
                .cos = cos.data(),
                .sin = sin.data()},
               0, rows);
  const Array x = Array::Random(element(), rows * heads * 2 * half, 8);
  Array y = x;
  RopeCpu({.element = element(),
           .x = y.bytes(),
           .heads = heads,
           .half = half,
           .cos = cos.data(),
           .sin = sin.data()},
          0, rows);
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t i = 0; i < half; ++i) {
      const float angle =
          static_cast<float>(positions[r]) * frequencies[static_cast<std::size_t>(i)];
      const float c = RoundTo(element(), std::cos(angle)), s = RoundTo(element(), std::sin(angle));
      for (std::int64_t h = 0; h < heads; ++h) {
        const std::int64_t low = (r * heads + h) * 2 * half + i, high = low + half;
        const auto m = [&](float v) { return RoundTo(element(), v); };
        EXPECT_EQ(y.Get(low), m(m(x.Get(low) * c) + m(-x.Get(high) * s)));
        EXPECT_EQ(y.Get(high), m(m(x.Get(high) * c) + m(x.Get(low) * s)));
      }
    }
  }
}

TEST_P(RowKernels, CombineSumsByRankAndGatesTheSharedExpert) {
  const std::int64_t rows = 3, k = 4, d = 21;
  const Array experts = Array::Random(element(), rows * k * d, 9),
              shared = Array::Random(element(), rows * d, 10);
  const Array gate = Array::Random(element(), rows, 11);
  const std::int32_t slots[] = {3, 7, 0, 11, 1, 2, 4, 5, 10, 9, 8, 6};
  std::vector<float> weights;
  for (int i = 0; i < rows * k; ++i) weights.push_back(0.05f + 0.013f * static_cast<float>(i));
  Array y(element(), rows * d);
  CombineCpu({.element = element(),
              .expert_output = experts.at(0),
              .slots = slots,
              .weights = weights.data(),
              .k = k,
              .shared_output = shared.at(0),
              .shared_gate = gate.at(0),
              .y = y.bytes(),
              .d = d},
             0, rows);
  const auto m = [&](float v) { return RoundTo(element(), v); };
  for (std::int64_t r = 0; r < rows; ++r) {
    const float g = m(1 / (1 + std::exp(-gate.Get(r))));
    for (std::int64_t i = 0; i < d; ++i) {
      float sum = 0;
      for (std::int64_t rank = 0; rank < k; ++rank) {
        sum += m(experts.Get(slots[r * k + rank] * d + i) *
                 m(weights[static_cast<std::size_t>(r * k + rank)]));
      }
      const float want = m(m(sum) + m(g * shared.Get(r * d + i)));
      // The last bit of σ may differ, and with it one unit of what it scales.
      EXPECT_NEAR(y.Get(r * d + i), want,
                  2 * Tolerance() * (std::fabs(want) + std::fabs(shared.Get(r * d + i))));
    }
  }
}

TEST_P(RowKernels, GiveARowTheSameBitsAtEveryPlace) {
  const std::int64_t rows = 19, d = 45;
  Array x(element(), rows * d), weight = Array::Random(element(), d, 12);
  const Array one = Array::Random(element(), d, 13);
  for (std::int64_t i = 0; i < rows * d; ++i) x.Set(i, one.Get(i % d));
  Array normal(element(), rows * d), silu(element(), rows * d);
  RmsNormCpu({.element = element(),
              .x = x.bytes(),
              .weight = weight.at(0),
              .y = normal.bytes(),
              .d = d,
              .epsilon = 1e-6f},
             0, rows);
  GatedSiluCpu({.element = element(),
                .gate = x.at(0),
                .up = normal.at(0),
                .stride = d,
                .y = silu.bytes(),
                .y_stride = d,
                .width = d},
               0, rows);
  for (std::int64_t r = 1; r < rows; ++r) {
    EXPECT_EQ(normal.Bits(r * d, d), normal.Bits(0, d)) << r;
    EXPECT_EQ(silu.Bits(r * d, d), silu.Bits(0, d)) << r;
  }
}

TEST_P(RowKernels, ElementsGetTheSameBitsInAVectorAndInATail) {
  // One value, everywhere: whole vectors and tails must round it alike.
  const std::int64_t width = 16 * 3 + 11;
  Array gate(element(), width), up(element(), width), y(element(), width);
  for (std::int64_t i = 0; i < width; ++i) {
    gate.Set(i, 1.2345f);
    up.Set(i, -0.777f);
  }
  GatedSiluCpu({.element = element(),
                .gate = gate.at(0),
                .up = up.at(0),
                .stride = width,
                .y = y.bytes(),
                .y_stride = width,
                .width = width},
               0, 1);
  for (std::int64_t i = 1; i < width; ++i) EXPECT_EQ(y.Bits(i, 1), y.Bits(0, 1)) << i;
}

TEST_P(RowKernels, EntropyIsThatOfTheDistribution) {
  for (const std::int64_t count : {1, 4, 60, 64}) {
    std::vector<float> p;
    double total = 0, want = 0;
    for (std::int64_t i = 0; i < count; ++i)
      p.push_back(i % 5 == 3 ? 0.0f : static_cast<float>(i % 7 + 1));
    for (const float v : p) total += v;
    for (float& v : p) {
      v = static_cast<float>(v / total);
      if (v > 0) want -= v * std::log(static_cast<double>(v));
    }
    EXPECT_NEAR(EntropyCpu(p.data(), count), want, 2e-6 * (1 + want)) << count;
  }
}

// Σ p_a (ln p_a − ln p_b) in fp64, from log-softmax.
double DivergenceOf(const std::vector<float>& a, const std::vector<float>& b) {
  const auto log_sum = [](const std::vector<float>& z) {
    const double top = *std::max_element(z.begin(), z.end());
    double sum = 0;
    for (const double v : z) sum += std::exp(v - top);
    return top + std::log(sum);
  };
  const double total_a = log_sum(a), total_b = log_sum(b);
  double kl = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double log_a = a[i] - total_a;
    kl += std::exp(log_a) * (log_a - (b[i] - total_b));
  }
  return kl;
}

TEST_P(RowKernels, DivergenceIsThatOfTheTwoSoftmaxes) {
  for (const std::int64_t count : {1, 3, 4, 16, 60, 61, 256}) {
    const auto size = static_cast<std::size_t>(count);
    std::vector<float> a(size), b(size);
    for (std::size_t i = 0; i < size; ++i) {
      a[i] = static_cast<float>(std::sin(3.0 * static_cast<double>(i)) * 4 + 100);
      b[i] = static_cast<float>(std::cos(5.0 * static_cast<double>(i)) * 3 - 20);
    }
    const double want = DivergenceOf(a, b);
    EXPECT_NEAR(DivergenceCpu(a.data(), b.data(), count), want, 1e-5 * (1 + want)) << count;
    EXPECT_EQ(DivergenceCpu(a.data(), a.data(), count), 0) << count;
  }
}

TEST_P(RowKernels, DivergenceCountsWhatUnderflows) {
  // e^-300 is zero in fp32, and ln of it is not.
  const std::vector<float> a = {0, 0, -300}, b = {0, -300, 0};
  EXPECT_NEAR(DivergenceCpu(a.data(), b.data(), 3), DivergenceOf(a, b), 1e-4);
  EXPECT_GT(DivergenceCpu(a.data(), b.data(), 3), 149);
}

PENSTOCK_INSTANTIATE_KERNEL_TEST(RowKernels);

}  // namespace
}  // namespace penstock
