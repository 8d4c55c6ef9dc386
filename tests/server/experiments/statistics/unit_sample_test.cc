#include "server/experiments/statistics/unit_sample.h"

#include <string>

#include "gtest/gtest.h"
#include "server/experiments/statistics/hyper_log_log.h"

namespace penstock {
namespace {

UnitSample Sample(int first, int last) {
  UnitSample sample;
  for (int i = first; i < last; ++i) sample.Add(UnitHash("user " + std::to_string(i)));
  return sample;
}

TEST(UnitSampleTest, HoldsTheSmallestHashesOnceWhateverTheirOrder) {
  UnitSample sample = Sample(0, 5000);
  const std::vector<std::uint64_t> before = sample.smallest();
  ASSERT_EQ(before.size(), UnitSample::kSize);
  for (std::size_t i = 1; i < before.size(); ++i) EXPECT_LT(before[i - 1], before[i]);
  EXPECT_LT(before.back(), std::uint64_t{1} << 53);
  for (int i = 4999; i >= 0; --i) sample.Add(UnitHash("user " + std::to_string(i)));
  EXPECT_EQ(sample.smallest(), before);
}

TEST(UnitSampleTest, ReplicasWithTheirOwnUnitsShareNone) {
  const std::vector<std::vector<std::uint64_t>> samples = {
      Sample(0, 3000).smallest(), Sample(3000, 3100).smallest(), {}};
  const SharedUnits shared = CompareSamples(samples);
  EXPECT_EQ(shared.sampled, 32);
  EXPECT_EQ(shared.split, 0);
  EXPECT_EQ(shared.replicas, 1);
}

TEST(UnitSampleTest, SplitUnitsAreSeenAsOftenAsThereAreAny) {
  // Half of the second's are the first's: a third of the union.
  int split = 0;
  for (int from = 0; from < 100; ++from) {
    const int first = from * 10'000;
    const std::vector<std::vector<std::uint64_t>> samples = {
        Sample(first, first + 2000).smallest(), Sample(first + 1000, first + 3000).smallest()};
    const SharedUnits shared = CompareSamples(samples);
    EXPECT_EQ(shared.sampled, 32);
    EXPECT_NEAR(shared.replicas, 1 + shared.split / 32.0, 1e-12);
    split += shared.split;
  }
  EXPECT_NEAR(split / 3200.0, 1 / 3.0, 0.03);
}

TEST(UnitSampleTest, FewUnitsAreAllCompared) {
  const std::vector<std::vector<std::uint64_t>> samples = {Sample(0, 3).smallest(),
                                                           Sample(2, 5).smallest()};
  const SharedUnits shared = CompareSamples(samples);
  EXPECT_EQ(shared.sampled, 5);
  EXPECT_EQ(shared.split, 1);
  EXPECT_EQ(shared.replicas, 1.2);
  EXPECT_EQ(CompareSamples({}).sampled, 0);
}

}  // namespace
}  // namespace penstock
