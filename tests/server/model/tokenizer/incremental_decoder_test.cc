#include "server/model/tokenizer/incremental_decoder.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/server/model/tokenizer/tokenizer_file.h"

namespace penstock {
namespace {

std::shared_ptr<const Tokenizer> EmojiTokenizer() {
  // 256: the first two bytes of many emoji; 257: a space and the first byte of é.
  nlohmann::json file = TokenizerFile({{"ð", "Ł"}, {"Ġ", "Ã"}});
  file["added_tokens"] = {AddedTokenEntry(258, "<s>")};
  file["added_tokens"][0]["special"] = true;
  auto tokenizer = Tokenizer::Parse(file.dump());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *tokenizer;
}

TEST(IncrementalDecoderTest, HoldsBackUnfinishedCharacters) {
  IncrementalDecoder decoder(EmojiTokenizer(), true);
  EXPECT_EQ(decoder.Push('a'), "a");
  EXPECT_EQ(decoder.Push(256), "");
  EXPECT_EQ(decoder.Push(0x98), "");
  EXPECT_EQ(decoder.Push(0x80), "😀");
  EXPECT_EQ(decoder.Push(257), " ") << "the space is whole, the letter isn't";
  EXPECT_EQ(decoder.Push(0xA9), "é");
  EXPECT_EQ(decoder.Finish(), "");
}

TEST(IncrementalDecoderTest, ReplacesWhatStaysBrokenWhenThatIsCertain) {
  IncrementalDecoder decoder(EmojiTokenizer(), true);
  EXPECT_EQ(decoder.Push(256), "");
  EXPECT_EQ(decoder.Push('a'), "\uFFFDa");
  EXPECT_EQ(decoder.Push(0x80), "\uFFFD");
  EXPECT_EQ(decoder.Push(0xE2), "");
  EXPECT_EQ(decoder.Finish(), "\uFFFD");
  EXPECT_EQ(decoder.Push('b'), "b");
}

TEST(IncrementalDecoderTest, PassesOverSpecialTokensOnRequestEvenInsideACharacter) {
  for (const bool skip : {true, false}) {
    IncrementalDecoder decoder(EmojiTokenizer(), skip);
    std::string text;
    for (const int32_t id : {0xC3, 258, 0xA9}) text += decoder.Push(id);
    EXPECT_EQ(text, skip ? "é" : "\uFFFD<s>\uFFFD");
  }
}

TEST(IncrementalDecoderTest, JoinsToTheDecodeOfTheWholeOnRandomIds) {
  const auto tokenizer = EmojiTokenizer();
  std::mt19937 random(1);
  for (int round = 0; round < 5000; ++round) {
    std::vector<int32_t> ids(random() % 20);
    for (int32_t& id : ids) {
      // Mostly bytes that make up, or break, sequences of several bytes.
      id = random() % 4 == 0 ? static_cast<int32_t>(random() % 262)
                             : static_cast<int32_t>(0x80 + random() % 0x80);
    }
    const bool skip = round % 2 == 0;
    IncrementalDecoder decoder(tokenizer, skip);
    std::string joined;
    for (const int32_t id : ids) {
      const std::string text = decoder.Push(id);
      EXPECT_EQ(FindInvalidUtf8(text), std::nullopt);
      joined += text;
    }
    joined += decoder.Finish();
    ASSERT_EQ(joined, tokenizer->Decode(ids, skip));
  }
}

}  // namespace
}  // namespace penstock
