#include "server/kvcache/block_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace penstock {
namespace {

using ::testing::ElementsAre;

TEST(BlockTableTest, GrowsByWhatIsMissing) {
  BlockPool pool(4);
  BlockTable table(&pool);
  EXPECT_TRUE(table.Grow(2));
  EXPECT_TRUE(table.Grow(3));
  EXPECT_EQ(table.size(), 3);
  EXPECT_TRUE(table.Grow(1));
  EXPECT_EQ(table.size(), 3);
  EXPECT_EQ(pool.active(), 3);
}

TEST(BlockTableTest, GrowsWhollyOrNotAtAll) {
  BlockPool pool(4);
  BlockTable table(&pool), other(&pool);
  ASSERT_TRUE(other.Grow(2));
  EXPECT_FALSE(table.Grow(3));
  EXPECT_EQ(table.size(), 0);
  EXPECT_EQ(pool.free(), 2);
}

TEST(BlockTableTest, TakesOverTheHoldsOfAdoptedBlocks) {
  BlockPool pool(2);
  const BlockId shared = pool.Allocate().value();
  {
    BlockTable table(&pool);
    pool.Hold(shared);
    table.Adopt({shared});
    ASSERT_TRUE(table.Grow(2));
    EXPECT_EQ(table.blocks()[0], shared);
    EXPECT_EQ(pool.holders(shared), 2);
  }
  EXPECT_EQ(pool.holders(shared), 1);
  EXPECT_EQ(pool.free(), 1);
}

TEST(BlockTableTest, ReleasesTheTailFirstSoThatItIsEvictedFirst) {
  BlockPool pool(3);
  std::vector<BlockId> evicted;
  pool.SetEvictionListener([&](BlockId block) { evicted.push_back(block); });
  BlockTable table(&pool);
  ASSERT_TRUE(table.Grow(3));
  const std::vector<BlockId> blocks = table.blocks();
  for (BlockId block : blocks) pool.MarkReusable(block);
  table.Release();
  EXPECT_EQ(table.size(), 0);
  for (int i = 0; i < 3; ++i) pool.Allocate().value();
  EXPECT_THAT(evicted, ElementsAre(blocks[2], blocks[1], blocks[0]));
}

}  // namespace
}  // namespace penstock
