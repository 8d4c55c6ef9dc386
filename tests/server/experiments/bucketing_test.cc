#include "server/experiments/bucketing.h"

#include <fstream>
#include <string>

#include "absl/strings/escaping.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace penstock {
namespace {

// Appleby's SMHasher prints this for MurmurHash3_x86_32: the hash, seed 0, of the hashes of the
// keys {}, {0}, {0, 1}, … with seeds 256, 255, …
TEST(Murmur3Test, HasTheVerificationValueOfItsAuthor) {
  std::string key, hashes;
  for (std::uint32_t i = 0; i < 256; ++i) {
    const std::uint32_t hash = Murmur3(256 - i).Add(key).Finish();
    for (int byte = 0; byte < 4; ++byte) hashes += static_cast<char>(hash >> (8 * byte));
    key += static_cast<char>(i);
  }
  EXPECT_EQ(Murmur3().Add(hashes).Finish(), 0xB0F57EE3u);
}

TEST(Murmur3Test, HashesWhatOthersPublish) {
  EXPECT_EQ(Murmur3().Finish(), 0u);
  EXPECT_EQ(Murmur3(1).Finish(), 0x514E28B7u);
  EXPECT_EQ(Murmur3().Add("\x21").Finish(), 0x72661CF4u);
  EXPECT_EQ(Murmur3().Add("\x21\x43\x65\x87").Finish(), 0xF55B516Bu);
  EXPECT_EQ(Murmur3().Add("The quick brown fox jumps over the lazy dog").Finish(), 0x2E4FF723u);
}

TEST(Murmur3Test, PiecesMakeNoDifference) {
  const std::string text = "a sentence of some length";
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    EXPECT_EQ(Murmur3().Add(text.substr(0, cut)).Add(text.substr(cut)).Finish(),
              Murmur3().Add(text).Finish());
  }
}

TEST(BucketingTest, FollowsTheVectors) {
  std::ifstream stream(PENSTOCK_SOURCE_DIR "/tests/vectors/bucketing.json");
  const nlohmann::json vectors = nlohmann::json::parse(stream);
  ASSERT_GE(vectors.size(), 40);
  for (const nlohmann::json& vector : vectors) {
    SCOPED_TRACE(vector.dump());
    const std::string salt = absl::HexStringToBytes(vector["salt_hex"].get<std::string>());
    const std::string unit = absl::HexStringToBytes(vector["unit_hex"].get<std::string>());
    EXPECT_EQ(HashUnit(salt, unit), vector["hash"].get<std::uint32_t>());
    EXPECT_EQ(Bucket(salt, unit), vector["bucket"].get<int>());
  }
}

}  // namespace
}  // namespace penstock
