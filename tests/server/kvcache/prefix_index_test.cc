#include "server/kvcache/prefix_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr PrefixScope kScope{.package_fingerprint = "f1", .tenant = "acme", .salt = ""};

// The keys of consecutive blocks of two tokens.
std::vector<PrefixKey> KeysOf(const PrefixScope& scope, const std::vector<std::int32_t>& tokens) {
  PrefixHasher hasher;
  std::vector<PrefixKey> keys;
  PrefixKey parent = hasher.Root(scope);
  for (std::size_t i = 0; i + 2 <= tokens.size(); i += 2) {
    parent = hasher.Extend(parent, absl::MakeConstSpan(tokens).subspan(i, 2));
    keys.push_back(parent);
  }
  return keys;
}

TEST(PrefixKeyTest, IsTheSha256OfParentAndTokens) {
  // printf of 32 zero bytes and the int32 values 1, 2 in little-endian order, through sha256sum.
  const PrefixKey key = PrefixHasher().Extend(PrefixKey(), {1, 2});
  const std::string bytes(key.bytes.begin(), key.bytes.end());
  EXPECT_EQ(absl::BytesToHexString(bytes),
            "e7ca17d6581d126af7e0c8574cdd8987ed93319969b54a5e2a272d585a38f3ea");
}

TEST(PrefixKeyTest, DependsOnEveryPartOfTheScopeAndOnEveryTokenBefore) {
  const std::vector<PrefixScope> scopes = {
      kScope,
      {.package_fingerprint = "f2", .tenant = "acme", .salt = ""},
      {.package_fingerprint = "f1", .tenant = "bolt", .salt = ""},
      {.package_fingerprint = "f1", .tenant = "acme", .salt = "s"},
      {.package_fingerprint = "f1", .tenant = std::nullopt, .salt = ""},
      {.package_fingerprint = "f1", .tenant = "", .salt = ""},
      // The same bytes, cut elsewhere.
      {.package_fingerprint = "f1a", .tenant = "cme", .salt = ""},
      {.package_fingerprint = "f1", .tenant = "acm", .salt = "e"},
  };
  const std::vector<std::vector<std::int32_t>> prompts = {
      {1, 2, 3, 4}, {9, 2, 3, 4}, {2, 1, 3, 4}, {3, 4}};
  std::set<std::array<std::uint8_t, 32>> keys;
  for (const PrefixScope& scope : scopes) {
    for (const auto& prompt : prompts) keys.insert(KeysOf(scope, prompt).back().bytes);
  }
  EXPECT_EQ(keys.size(), scopes.size() * prompts.size());
}

TEST(PrefixKeyTest, IsTheSameForTheSamePrefixWhateverFollows) {
  EXPECT_EQ(KeysOf(kScope, {1, 2, 3, 4})[0], KeysOf(kScope, {1, 2, 7, 8})[0]);
}

class PrefixIndexTest : public ::testing::Test {
 protected:
  // Allocates a block for each key, indexes and releases them, the last one first.
  std::vector<BlockId> Fill(const std::vector<PrefixKey>& keys) {
    std::vector<BlockId> blocks;
    for (const PrefixKey& key : keys) {
      blocks.push_back(pool_.Allocate().value());
      EXPECT_TRUE(index_.Add(key, blocks.back()));
    }
    for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) pool_.Release(*block);
    return blocks;
  }

  BlockPool pool_{4};
  PrefixIndex index_{&pool_};
};

TEST_F(PrefixIndexTest, FindsTheLongestRunOfBlocksFromTheStart) {
  const auto blocks = Fill(KeysOf(kScope, {1, 2, 3, 4, 5, 6}));
  EXPECT_THAT(index_.Match(KeysOf(kScope, {1, 2, 3, 4, 9, 9})), ElementsAre(blocks[0], blocks[1]));
  EXPECT_THAT(index_.Match(KeysOf(kScope, {9, 9, 3, 4, 5, 6})), IsEmpty());
}

TEST_F(PrefixIndexTest, HoldsWhatItFinds) {
  const auto keys = KeysOf(kScope, {1, 2});
  const auto blocks = Fill(keys);
  EXPECT_EQ(pool_.state(blocks[0]), BlockState::kCached);
  EXPECT_THAT(index_.Match(keys), ElementsAre(blocks[0]));
  EXPECT_THAT(index_.Match(keys), ElementsAre(blocks[0]));
  EXPECT_EQ(pool_.holders(blocks[0]), 2);
}

TEST_F(PrefixIndexTest, FindsBlocksThatAreStillInUse) {
  const auto keys = KeysOf(kScope, {1, 2});
  const BlockId block = pool_.Allocate().value();
  ASSERT_TRUE(index_.Add(keys[0], block));
  EXPECT_THAT(index_.Match(keys), ElementsAre(block));
  EXPECT_EQ(pool_.holders(block), 2);
}

TEST_F(PrefixIndexTest, ForgetsABlockThatIsEvicted) {
  const auto keys = KeysOf(kScope, {1, 2, 3, 4, 5, 6, 7, 8});
  const auto blocks = Fill(keys);
  EXPECT_EQ(index_.size(), 4);
  EXPECT_EQ(pool_.Allocate(), blocks[3]);
  EXPECT_EQ(index_.size(), 3);
  EXPECT_EQ(index_.KeyOf(blocks[3]), nullptr);
  EXPECT_THAT(index_.Match(keys), ElementsAre(blocks[0], blocks[1], blocks[2]));
}

TEST_F(PrefixIndexTest, KeepsTheFirstOfTwoBlocksWithOneKey) {
  const auto keys = KeysOf(kScope, {1, 2});
  const BlockId first = pool_.Allocate().value(), second = pool_.Allocate().value();
  EXPECT_TRUE(index_.Add(keys[0], first));
  EXPECT_FALSE(index_.Add(keys[0], second));
  EXPECT_THAT(index_.Match(keys), ElementsAre(first));
  pool_.Release(second);
  EXPECT_EQ(pool_.state(second), BlockState::kFree);
}

TEST_F(PrefixIndexTest, NeverFindsBlocksOfAnotherRouterTenantOrSalt) {
  const std::vector<std::int32_t> tokens = {1, 2, 3, 4};
  Fill(KeysOf(kScope, tokens));
  for (const PrefixScope& other :
       {PrefixScope{.package_fingerprint = "f2", .tenant = "acme", .salt = ""},
        PrefixScope{.package_fingerprint = "f1", .tenant = "bolt", .salt = ""},
        PrefixScope{.package_fingerprint = "f1", .tenant = std::nullopt, .salt = ""},
        PrefixScope{.package_fingerprint = "f1", .tenant = "acme", .salt = "s"}}) {
    EXPECT_THAT(index_.Match(KeysOf(other, tokens)), IsEmpty());
  }
}

}  // namespace
}  // namespace penstock
