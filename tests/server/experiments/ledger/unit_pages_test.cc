#include "server/experiments/ledger/unit_pages.h"

#include "gtest/gtest.h"

namespace penstock {
namespace {

UnitRecord Record(std::uint64_t hash) {
  UnitRecord record;
  record.hash = hash;
  return record;
}

TEST(UnitPagesTest, WhatWasSharedStaysAsItWasWhileRecordsComeAndChange) {
  UnitPages pages;
  // Downwards, over more than one page and with a part of the last.
  for (std::uint64_t i = 0; i < 1000; ++i) EXPECT_EQ(pages.Add(Record(1000 - i)), i);
  pages.Change(0).values[Quantity::kTokens] = 1;
  const SharedUnitPages shared = pages.Share();
  pages.Change(0).values[Quantity::kTokens] = 2;
  pages.Change(0).values[Quantity::kTokens] += 1;
  pages.Add(Record(2000));
  EXPECT_EQ(pages.At(0).values[Quantity::kTokens], 3);
  EXPECT_EQ(pages.size(), 1001u);

  const std::vector<UnitRecord> records = SortedRecords(shared);
  ASSERT_EQ(records.size(), 1000u);
  for (std::uint64_t i = 0; i < 1000; ++i) EXPECT_EQ(records[i].hash, i + 1);
  EXPECT_EQ(records.back().values[Quantity::kTokens], 1) << "of the first that was added";

  const std::vector<UnitRecord> later = SortedRecords(pages.Share());
  ASSERT_EQ(later.size(), 1001u);
  EXPECT_EQ(later.back().hash, 2000u);
  EXPECT_EQ(later[999].values[Quantity::kTokens], 3);
}

TEST(UnitPagesTest, PagesThatNobodyAskedForAreNotCopied) {
  UnitPages pages;
  for (std::uint64_t i = 0; i < 1000; ++i) pages.Add(Record(i));
  const SharedUnitPages first = pages.Share();
  pages.Change(500);
  const SharedUnitPages second = pages.Share();
  ASSERT_EQ(first.size(), second.size());
  int copied = 0;
  for (std::size_t i = 0; i < first.size(); ++i) copied += first[i] == second[i] ? 0 : 1;
  EXPECT_EQ(copied, 1);
}

}  // namespace
}  // namespace penstock
