#include "server/experiments/statistics/hyper_log_log.h"

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace penstock {
namespace {

constexpr double kStandardError = 1.04 / 128;  // 1.04 / √kRegisters

HyperLogLog OfUnits(int first, int count) {
  HyperLogLog sketch;
  for (int i = first; i < first + count; ++i) sketch.Add(UnitHash(absl::StrCat("unit ", i)));
  return sketch;
}

TEST(HyperLogLogTest, CountsFromNoneToMillions) {
  EXPECT_EQ(HyperLogLog().Estimate(), 0);
  for (const int count : {1, 10, 100, 1000, 10'000, 50'000, 200'000, 2'000'000}) {
    EXPECT_NEAR(OfUnits(0, count).Estimate() / count, 1, 3 * kStandardError) << count;
  }
}

TEST(HyperLogLogTest, ErrorsAreAsLargeAsStatedAndCentred) {
  // Around 2.5 units a register, where the first estimators are worst.
  constexpr int kSets = 100, kUnits = 40'000;
  double sum = 0, squares = 0;
  for (int set = 0; set < kSets; ++set) {
    const double error = OfUnits(set * kUnits, kUnits).Estimate() / kUnits - 1;
    sum += error;
    squares += error * error;
  }
  EXPECT_NEAR(sum / kSets, 0, 4 * kStandardError / std::sqrt(kSets));
  EXPECT_NEAR(std::sqrt(squares / kSets), kStandardError, 0.3 * kStandardError);
}

TEST(HyperLogLogTest, AUnitSeenAgainChangesNothing) {
  HyperLogLog sketch = OfUnits(0, 1000);
  const auto before = sketch.registers();
  for (int i = 0; i < 1000; ++i) sketch.Add(UnitHash(absl::StrCat("unit ", i)));
  EXPECT_EQ(sketch.registers(), before);
}

TEST(HyperLogLogTest, MergesToExactlyTheUnion) {
  HyperLogLog merged = OfUnits(0, 60'000);
  merged.Merge(OfUnits(40'000, 60'000));
  EXPECT_EQ(merged.registers(), OfUnits(0, 100'000).registers());
}

TEST(HyperLogLogTest, HashIsTheSameOnEveryMachine) {
  // FNV-1a of the empty string is its offset basis; of "a" 0xaf63dc4c8601ec8c (its published test
  // vectors); then Murmur3's 64-bit finalizer of either.
  EXPECT_EQ(UnitHash(""), 0xefd01f60ba992926u);
  EXPECT_EQ(UnitHash("a"), 0x82a2a958a9bece5bu);
}

TEST(HyperLogLogTest, TravelsAsRegistersAndRefusesDamagedOnes) {
  const HyperLogLog sketch = OfUnits(0, 5000);
  const auto back = HyperLogLog::FromRegisters(sketch.registers());
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->Estimate(), sketch.Estimate());
  EXPECT_FALSE(HyperLogLog::FromRegisters({1, 2, 3}).ok());
  std::vector<std::uint8_t> damaged = sketch.registers();
  damaged[7] = 52;
  EXPECT_FALSE(HyperLogLog::FromRegisters(damaged).ok());
}

}  // namespace
}  // namespace penstock
