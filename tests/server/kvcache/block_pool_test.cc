#include "server/kvcache/block_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace penstock {
namespace {

using ::testing::ElementsAre;

// Makes a block that is cached: allocated, reusable, released.
BlockId CacheOne(BlockPool* pool) {
  const BlockId block = pool->Allocate().value();
  pool->MarkReusable(block);
  pool->Release(block);
  return block;
}

TEST(BlockPoolTest, GivesEachBlockOnceAndThenNone) {
  BlockPool pool(3);
  std::set<BlockId> blocks;
  for (int i = 0; i < 3; ++i) blocks.insert(pool.Allocate().value());
  EXPECT_THAT(blocks, ElementsAre(0, 1, 2));
  EXPECT_EQ(pool.Allocate(), std::nullopt);
  EXPECT_EQ(pool.active(), 3);
  EXPECT_EQ(pool.available(), 0);
}

TEST(BlockPoolTest, FreesABlockWhenItsLastHolderLeaves) {
  BlockPool pool(1);
  const BlockId block = pool.Allocate().value();
  pool.Hold(block);
  pool.Release(block);
  EXPECT_EQ(pool.state(block), BlockState::kActive);
  EXPECT_EQ(pool.holders(block), 1);
  pool.Release(block);
  EXPECT_EQ(pool.state(block), BlockState::kFree);
  EXPECT_EQ(pool.free(), 1);
}

TEST(BlockPoolTest, KeepsReusableBlocksWithoutHolders) {
  BlockPool pool(2);
  const BlockId block = CacheOne(&pool);
  EXPECT_EQ(pool.state(block), BlockState::kCached);
  EXPECT_EQ(pool.cached(), 1);
  EXPECT_EQ(pool.free(), 1);
  EXPECT_EQ(pool.available(), 2);
}

TEST(BlockPoolTest, TakesFreeBlocksBeforeCachedOnes) {
  BlockPool pool(2);
  const BlockId cached = CacheOne(&pool);
  EXPECT_NE(pool.Allocate().value(), cached);
  EXPECT_EQ(pool.state(cached), BlockState::kCached);
}

TEST(BlockPoolTest, EvictsTheBlockThatWasReleasedFirst) {
  BlockPool pool(3);
  std::vector<BlockId> evicted;
  pool.SetEvictionListener([&](BlockId block) { evicted.push_back(block); });
  std::vector<BlockId> blocks;
  for (int i = 0; i < 3; ++i) blocks.push_back(pool.Allocate().value());
  for (BlockId block : blocks) pool.MarkReusable(block);
  pool.Release(blocks[1]);
  pool.Release(blocks[0]);
  pool.Release(blocks[2]);
  for (int i = 0; i < 3; ++i) pool.Allocate().value();
  EXPECT_THAT(evicted, ElementsAre(blocks[1], blocks[0], blocks[2]));
}

TEST(BlockPoolTest, HoldingACachedBlockAgainMakesItNewest) {
  BlockPool pool(2);
  std::vector<BlockId> evicted;
  pool.SetEvictionListener([&](BlockId block) { evicted.push_back(block); });
  const BlockId first = pool.Allocate().value(), second = pool.Allocate().value();
  for (BlockId block : {first, second}) {
    pool.MarkReusable(block);
    pool.Release(block);
  }
  pool.Hold(first);
  EXPECT_EQ(pool.state(first), BlockState::kActive);
  EXPECT_EQ(pool.cached(), 1);
  pool.Release(first);
  pool.Allocate().value();
  EXPECT_THAT(evicted, ElementsAre(second));
}

TEST(BlockPoolTest, AnEvictedBlockIsNoLongerReusable) {
  BlockPool pool(1);
  const BlockId block = CacheOne(&pool);
  ASSERT_EQ(pool.Allocate(), block);
  pool.Release(block);
  EXPECT_EQ(pool.state(block), BlockState::kFree);
}

TEST(BlockPoolTest, UnlinksFromTheMiddleOfTheCachedBlocks) {
  BlockPool pool(3);
  std::vector<BlockId> blocks;
  for (int i = 0; i < 3; ++i) blocks.push_back(pool.Allocate().value());
  for (BlockId block : blocks) {
    pool.MarkReusable(block);
    pool.Release(block);
  }
  pool.Hold(blocks[1]);
  EXPECT_EQ(pool.Allocate(), blocks[0]);
  EXPECT_EQ(pool.Allocate(), blocks[2]);
  EXPECT_EQ(pool.Allocate(), std::nullopt);
}

TEST(BlockPoolDeathTest, DiesWhenAFreeBlockIsReleasedOrHeld) {
  BlockPool pool(1);
  EXPECT_DEATH(pool.Release(0), "check failed.*block 0");
  EXPECT_DEATH(pool.Hold(0), "block 0 is free");
  EXPECT_DEATH(pool.Hold(1), "block 1 of 1");
}

}  // namespace
}  // namespace penstock
