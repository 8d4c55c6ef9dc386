// What the kernel tests share, and tests of it: conversions and the choice of build.
#include "tests/kernels/kernel_arrays.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/logits.h"
#include "kernels/matmul.h"

namespace penstock {

std::uint16_t Bf16Bits(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Slow and plain: the multiple of the unit in the last place that is nearest, ties to even.
std::uint16_t Fp16Bits(float value) {
  const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(static_cast<double>(value));
  if (std::isnan(value)) return sign | 0x7e00;
  int exponent = magnitude == 0 ? -14 : std::max(-14, std::ilogb(magnitude));
  double units = std::nearbyint(std::ldexp(magnitude, 10 - exponent));
  if (units == 2048) {
    units = 1024;
    ++exponent;
  }
  if (exponent > 15) return sign | 0x7c00;
  if (units < 1024) return sign | static_cast<std::uint16_t>(units);
  return static_cast<std::uint16_t>(sign | ((exponent + 15) << 10) |
                                    (static_cast<int>(units) - 1024));
}

namespace {

float FromBf16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

float FromFp16(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const float sign = (bits & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 31)
    return fraction == 0 ? sign * std::numeric_limits<float>::infinity() : std::nanf("");
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  return sign * std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
}

}  // namespace

float RoundTo(Element element, float value) {
  if (element == Element::kBF16) return FromBf16(Bf16Bits(value));
  return element == Element::kF16 ? FromFp16(Fp16Bits(value)) : value;
}

Array::Array(Element element, std::int64_t count)
    : element_(element),
      count_(count),
      size_(static_cast<std::int64_t>(SizeOf(element))),
      bytes_(static_cast<std::size_t>(count * size_)) {}

Array Array::Random(Element element, std::int64_t count, unsigned seed, float scale) {
  Array array(element, count);
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, scale);
  for (std::int64_t i = 0; i < count; ++i) array.Set(i, normal(generator));
  return array;
}

void Array::Set(std::int64_t i, float value) {
  const std::uint16_t half = element_ == Element::kBF16 ? Bf16Bits(value) : Fp16Bits(value);
  if (element_ == Element::kF32) {
    std::memcpy(at(i), &value, sizeof value);
  } else {
    std::memcpy(at(i), &half, sizeof half);
  }
}

float Array::Get(std::int64_t i) const {
  if (element_ == Element::kF32) {
    float value;
    std::memcpy(&value, at(i), sizeof value);
    return value;
  }
  std::uint16_t half;
  std::memcpy(&half, at(i), sizeof half);
  return element_ == Element::kBF16 ? FromBf16(half) : FromFp16(half);
}

std::string Array::Bits(std::int64_t first, std::int64_t count) const {
  return {bytes_.data() + first * size_, static_cast<std::size_t>(count * size_)};
}

float KernelTest::Tolerance() const {
  if (element() == Element::kBF16) return 0x1p-7f;
  return element() == Element::kF16 ? 0x1p-10f : 2e-6f;
}

std::vector<Isa> HostIsas() {
  std::vector<Isa> levels;
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
    if (isa <= HostIsa()) levels.push_back(isa);
  }
  return levels;
}

std::string KernelTestName(const testing::TestParamInfo<std::tuple<Isa, Element>>& info) {
  const char* const elements[] = {"f32", "bf16", "f16"};
  return std::string(Name(std::get<0>(info.param))) + "_" +
         elements[static_cast<int>(std::get<1>(info.param))];
}

namespace {

using Conversions = KernelTest;

TEST_P(Conversions, WidenEveryStoredValueExactly) {
  if (element() == Element::kF32) {
    const float values[] = {0.0f, -1.5f, 1e-40f, 3e38f};
    float widened[4];
    EXPECT_TRUE(WidenCpu(element(), values, widened, 4));
    EXPECT_THAT(widened, testing::ElementsAreArray(values));
    return;
  }
  std::vector<std::uint16_t> bits;
  for (int i = 0; i < 65536; ++i) bits.push_back(static_cast<std::uint16_t>(i));
  std::vector<float> widened(bits.size());
  EXPECT_FALSE(WidenCpu(element(), bits.data(), widened.data(), 65536))
      << "infinities and NaN are among them";
  for (std::size_t i = 0; i < bits.size(); ++i) {
    const float want = element() == Element::kBF16 ? FromBf16(bits[i]) : FromFp16(bits[i]);
    if (std::isnan(want)) {
      EXPECT_TRUE(std::isnan(widened[i])) << i;
    } else {
      ASSERT_EQ(std::bit_cast<std::uint32_t>(widened[i]), std::bit_cast<std::uint32_t>(want)) << i;
    }
  }
}

TEST_P(Conversions, RoundToNearestEven) {
  // A product with the 1 × 1 identity: every value is rounded once, on its way out.
  std::vector<float> values = {0.0f,        -0.0f,          1.0f,          1.00390625f, 1.01171875f,
                               65504.0f,    65519.0f,       65520.0f,      1e-8f,       2.98e-8f,
                               3e-8f,       6.1e-5f,        1e38f,         3.4e38f,     -7e-6f,
                               0.33333334f, 1.00048828125f, 1.00146484375f};
  std::mt19937 generator(3);
  for (int i = 0; i < 20000; ++i) {
    const auto bits = static_cast<std::uint32_t>(generator());
    const auto value = std::bit_cast<float>(bits);
    if (std::isfinite(value) && std::fabs(value) >= std::numeric_limits<float>::min())
      values.push_back(value);
  }
  const float one = 1;
  Array y(element(), static_cast<std::int64_t>(values.size()));
  MatMulCpu({.element = Element::kF32,
             .x = values.data(),
             .x_stride = 1,
             .num_rows = y.size(),
             .weight = &one,
             .n = 1,
             .m = 1,
             .y_element = element(),
             .y = y.bytes(),
             .y_stride = 1},
            0, 1);
  for (std::int64_t i = 0; i < y.size(); ++i) {
    ASSERT_EQ(y.Get(i), RoundTo(element(), values[static_cast<std::size_t>(i)]))
        << values[static_cast<std::size_t>(i)];
  }
}

PENSTOCK_INSTANTIATE_KERNEL_TEST(Conversions);

TEST(Isa, HasANameForEveryLevelAndNeverRisesAboveTheHost) {
  for (const Isa isa : HostIsas()) {
    EXPECT_FALSE(Name(isa).empty());
    SetActiveIsa(isa);
    EXPECT_EQ(ActiveIsa(), isa);
  }
  SetActiveIsa(HostIsa());
  EXPECT_EQ(ActiveIsa(), HostIsa());
}

}  // namespace
}  // namespace penstock
