#include "kernels/philox.h"

#include "gtest/gtest.h"

namespace penstock {
namespace {

struct KnownAnswer {
  PhiloxBlock counter;
  PhiloxKey key;
  PhiloxBlock out;
};

// The published test vectors of philox4x32, 10 rounds (Random123 distribution, kat_vectors).
constexpr KnownAnswer kKnownAnswers[] = {
    {{{0, 0, 0, 0}}, {{0, 0}}, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
    {{{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}},
     {{0xffffffff, 0xffffffff}},
     {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
    {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
     {{0xa4093822, 0x299f31d0}},
     {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}},
};

TEST(PhiloxTest, GivesThePublishedTestVectors) {
  for (const KnownAnswer& known : kKnownAnswers) {
    const PhiloxBlock got = Philox4x32(known.counter, known.key);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(got.word[i], known.out.word[i]) << i;
  }
}

TEST(PhiloxTest, IsKnownAtCompileTime) {
  static_assert(Philox4x32({{0, 0, 0, 0}}, {{0, 0}}).word[0] == 0x6627e8d5);
  constexpr PhiloxKey kKey = PhiloxKeyOf(0x0123456789abcdefull);
  EXPECT_EQ(kKey.word[0], 0x89abcdefu);
  EXPECT_EQ(kKey.word[1], 0x01234567u);
}

}  // namespace
}  // namespace penstock
