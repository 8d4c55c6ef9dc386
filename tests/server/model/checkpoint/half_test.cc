#include "server/model/checkpoint/half.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace penstock {
namespace {

TEST(HalfTest, EveryHalfSurvivesWideningAndRounding) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = FromHalf(static_cast<std::uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(FromHalf(ToHalf(value)))) << bits;
    } else {
      EXPECT_EQ(ToHalf(value), bits);
    }
  }
}

TEST(HalfTest, RoundsToTheNearestHalfAndTiesToEven) {
  // Between neighbours a < b of the same sign: a little below the middle, the middle, a little
  // above.
  for (std::uint32_t bits = 0; bits < 0x7BFF; ++bits) {
    const double low = FromHalf(static_cast<std::uint16_t>(bits));
    const double high = FromHalf(static_cast<std::uint16_t>(bits + 1));
    const auto middle = static_cast<float>((low + high) / 2);
    EXPECT_EQ(ToHalf(std::nextafter(middle, 0.0f)), bits);
    EXPECT_EQ(ToHalf(middle), bits + (bits & 1));
    EXPECT_EQ(ToHalf(std::nextafter(middle, 1e9f)), bits + 1);
    EXPECT_EQ(ToHalf(-middle), 0x8000 + bits + (bits & 1));
  }
}

TEST(HalfTest, KnownValues) {
  EXPECT_EQ(ToHalf(1.0f), 0x3C00);
  EXPECT_EQ(ToHalf(65504.0f), 0x7BFF);
  EXPECT_EQ(ToHalf(65519.0f), 0x7BFF);
  EXPECT_EQ(ToHalf(65520.0f), 0x7C00);
  EXPECT_EQ(ToHalf(1e-10f), 0);
  EXPECT_EQ(ToHalf(std::numeric_limits<float>::infinity()), 0x7C00);
  EXPECT_EQ(FromHalf(0x0001), 0x1p-24f);
}

TEST(BFloat16Test, RoundsToTheNearestAndTiesToEven) {
  EXPECT_EQ(ToBFloat16(1.0f), 0x3F80);
  EXPECT_EQ(ToBFloat16(1.0f + 0x1p-8f), 0x3F80);  // a tie, to even
  EXPECT_EQ(ToBFloat16(1.0f + 0x3p-8f), 0x3F82);  // a tie, to even
  EXPECT_EQ(ToBFloat16(1.0f + 0x1p-8f + 0x1p-20f), 0x3F81);
  EXPECT_EQ(ToBFloat16(std::numeric_limits<float>::max()), 0x7F80);
  EXPECT_TRUE(std::isnan(FromBFloat16(ToBFloat16(std::nanf("")))));
  EXPECT_EQ(FromBFloat16(0xC000), -2.0f);
}

}  // namespace
}  // namespace penstock
