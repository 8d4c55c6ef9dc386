#include "server/model/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/server/model/tokenizer/tokenizer_file.h"
#include "tests/support/temporary_folder.h"

namespace penstock {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::shared_ptr<const Tokenizer> Make(const nlohmann::json& file) {
  auto tokenizer = Tokenizer::Parse(file.dump());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *tokenizer : nullptr;
}

std::vector<int32_t> Ids(const nlohmann::json& file, std::string_view text,
                         bool parse_special = true) {
  const auto ids = Make(file)->Encode(text, parse_special);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.value_or(std::vector<int32_t>{-1});
}

TEST(TokenizerTest, MergesTheBestRankFirstAndOfEqualRanksTheLeftmost) {
  // 256 "bc", 257 "ab", 258 "abc", 259 "aa"
  const nlohmann::json file = TokenizerFile({{"b", "c"}, {"a", "b"}, {"a", "bc"}, {"a", "a"}});
  EXPECT_THAT(Ids(file, "abc"), ElementsAre(258));
  EXPECT_THAT(Ids(file, "ab"), ElementsAre(257));
  EXPECT_THAT(Ids(file, "aaa"), ElementsAre(259, 'a'));
  EXPECT_THAT(Ids(file, "aaaab"), ElementsAre(259, 'a', 257)) << "ab ranks before aa";
}

TEST(TokenizerTest, NeverMergesAcrossWords) {
  const nlohmann::json file = TokenizerFile({{"a", "Ġ"}, {"a", "1"}, {"Ġ", "b"}});
  EXPECT_THAT(Ids(file, "a b"), ElementsAre('a', 258));
  EXPECT_THAT(Ids(file, "a1"), ElementsAre('a', '1'));
}

TEST(TokenizerTest, ReadsMergesAsStringsAsWell) {
  nlohmann::json file = TokenizerFile({{"a", "b"}});
  file["model"]["merges"] = {"#version: 0.2", "a b"};
  EXPECT_THAT(Ids(file, "ab"), ElementsAre(256));
}

TEST(TokenizerTest, TakesWholeWordsOfTheVocabularyUnderIgnoreMerges) {
  nlohmann::json file = TokenizerFile({{"a", "b"}});
  file["model"]["vocab"]["Ġxyz"] = 257;
  EXPECT_THAT(Ids(file, " xyz"), ElementsAre(' ', 'x', 'y', 'z'));
  file["model"]["ignore_merges"] = true;
  EXPECT_THAT(Ids(file, " xyz"), ElementsAre(257));
}

TEST(TokenizerTest, LeavesOutBytesWithoutATokenAsHuggingFaceDoes) {
  nlohmann::json file = TokenizerFile();
  file["model"]["vocab"].erase(LettersOfBytes("\x04"));
  EXPECT_THAT(Ids(file,
                  "a\x04"
                  "b"),
              ElementsAre('a', 'b'));
}

TEST(TokenizerTest, ComposesCharactersUnderNfc) {
  nlohmann::json file = TokenizerFile();
  EXPECT_THAT(Ids(file, "e\u0301"), ElementsAre('e', 0xCC, 0x81));
  file["normalizer"] = {{"type", "NFC"}};
  EXPECT_THAT(Ids(file, "e\u0301"), ElementsAre(0xC3, 0xA9));
  EXPECT_THAT(Ids(file, "e\u0316\u0301"), ElementsAre(0xC3, 0xA9, 0xCC, 0x96))
      << "marks are put in order";
  EXPECT_THAT(Ids(file, "\uAC00\u11A7"), ElementsAre(0xEA, 0xB0, 0x80, 0xE1, 0x86, 0xA7));
}

TEST(TokenizerTest, SplitsDigitsOffOneByOneOrInRuns) {
  nlohmann::json file = TokenizerFile({{"1", "2"}, {"Ġ", "1"}});
  EXPECT_THAT(Ids(file, " 12"), ElementsAre(' ', 256)) << "rank: 12 before Ġ1";
  file["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers",
                            {{{"type", "Digits"}, {"individual_digits", true}},
                             {{"type", "ByteLevel"}, {"add_prefix_space", false}}}}};
  EXPECT_THAT(Ids(file, " 12"), ElementsAre(' ', '1', '2'));
  file["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = false;
  EXPECT_THAT(Ids(file, " 12"), ElementsAre(' ', 256));
}

TEST(TokenizerTest, PutsASpaceInFrontWhenTheFileAsksForIt) {
  nlohmann::json file = TokenizerFile();
  file["pre_tokenizer"]["add_prefix_space"] = true;
  EXPECT_THAT(Ids(file, "a"), ElementsAre(' ', 'a'));
  EXPECT_THAT(Ids(file, " a"), ElementsAre(' ', 'a'));
  EXPECT_THAT(Ids(file, ""), IsEmpty());
}

TEST(TokenizerTest, FindsTheLongestAddedTokenWhereOneStarts) {
  nlohmann::json file = TokenizerFile();
  file["added_tokens"] = {AddedTokenEntry(256, "<a>"), AddedTokenEntry(257, "<a><b"),
                          AddedTokenEntry(258, "b>")};
  EXPECT_THAT(Ids(file, "x<a><b>"), ElementsAre('x', 257, '>'));
  EXPECT_THAT(Ids(file, "<a><a"), ElementsAre(256, '<', 'a'));
}

TEST(TokenizerTest, HonoursTheFlagsOfAddedTokens) {
  struct Case {
    const char* flag;
    const char* text;
    std::vector<int32_t> with, without;
  };
  const Case cases[] = {
      {"lstrip",
       "a \u3000<t> b",
       {'a', 256, ' ', 'b'},
       {'a', ' ', 0xE3, 0x80, 0x80, 256, ' ', 'b'}},
      {"rstrip", "a <t> \nb", {'a', ' ', 256, 'b'}, {'a', ' ', 256, ' ', '\n', 'b'}},
      {"single_word", "a<t>", {'a', '<', 't', '>'}, {'a', 256}},
      {"single_word", "-<t> ", {'-', 256, ' '}, {'-', 256, ' '}},
      {"single_word", "<t>_", {'<', 't', '>', '_'}, {256, '_'}},
  };
  for (const Case& c : cases) {
    nlohmann::json file = TokenizerFile();
    file["added_tokens"] = {AddedTokenEntry(256, "<t>")};
    EXPECT_EQ(Ids(file, c.text), c.without) << c.text;
    file["added_tokens"][0][c.flag] = true;
    EXPECT_EQ(Ids(file, c.text), c.with) << c.flag << ": " << c.text;
  }
}

TEST(TokenizerTest, LooksForNormalizedAddedTokensInTheNormalizedText) {
  nlohmann::json file = TokenizerFile();
  file["normalizer"] = {{"type", "NFC"}};
  file["added_tokens"] = {AddedTokenEntry(256, "<e\u0301>"), AddedTokenEntry(257, "<o\u0301>")};
  file["added_tokens"][0]["normalized"] = true;
  EXPECT_THAT(Ids(file, "<\u00e9><e\u0301>"), ElementsAre(256, 256));
  EXPECT_THAT(Ids(file, "<o\u0301>"), ElementsAre(257));
  EXPECT_THAT(Ids(file, "<\u00f3>"), ElementsAre('<', 0xC3, 0xB3, '>'));
}

TEST(TokenizerTest, ReadsSpecialTokensInTextOnlyWhenTold) {
  nlohmann::json file = TokenizerFile();
  file["added_tokens"] = {AddedTokenEntry(256, "<s>"), AddedTokenEntry(257, "<t>")};
  file["added_tokens"][0]["special"] = true;
  EXPECT_THAT(Ids(file, "<s><t>", true), ElementsAre(256, 257));
  EXPECT_THAT(Ids(file, "<s><t>", false), ElementsAre('<', 's', '>', 257));
}

TEST(TokenizerTest, DecodesBytesAndLeavesSpecialTokensOutOnRequest) {
  nlohmann::json file = TokenizerFile({{"Ġ", "a"}});
  file["added_tokens"] = {AddedTokenEntry(257, "<s>")};
  file["added_tokens"][0]["special"] = true;
  const auto tokenizer = Make(file);
  const std::vector<int32_t> ids = {256, 257, 0xC3, 0xA9, 0xC3, 'x', 9999, -1};
  EXPECT_EQ(tokenizer->Decode(ids, false), " a<s>é\uFFFDx");
  EXPECT_EQ(tokenizer->Decode(ids, true), " aé\uFFFDx");
}

TEST(TokenizerTest, KnowsItsTokens) {
  nlohmann::json file = TokenizerFile({{"Ġ", "a"}});
  file["added_tokens"] = {AddedTokenEntry(257, "<s>")};
  file["added_tokens"][0]["special"] = true;
  const auto tokenizer = Make(file);
  EXPECT_EQ(tokenizer->VocabSize(), 258);
  EXPECT_EQ(tokenizer->TokenBytes(256), " a");
  EXPECT_EQ(tokenizer->TokenBytes(0xC3), "\xC3");
  EXPECT_EQ(tokenizer->TokenBytes(257), "<s>");
  EXPECT_EQ(tokenizer->TokenBytes(258), "");
  EXPECT_EQ(tokenizer->TokenBytes(-1), "");
  EXPECT_TRUE(tokenizer->IsSpecial(257));
  EXPECT_FALSE(tokenizer->IsSpecial(256));
  EXPECT_FALSE(tokenizer->IsSpecial(1 << 30));
  EXPECT_EQ(tokenizer->TokenToId("Ġa"), 256);
  EXPECT_EQ(tokenizer->TokenToId("<s>"), 257);
  EXPECT_EQ(tokenizer->TokenToId("none"), std::nullopt);
}

TEST(TokenizerTest, RefusesTextThatIsNotUtf8) {
  const auto ids = Make(TokenizerFile())->Encode("ab\xC3(", true);
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(ids.status().message()),
              HasSubstr("text: got invalid UTF-8 at byte 2, want UTF-8"));
}

TEST(TokenizerTest, DecodingWhatWasEncodedGivesTheTextBack) {
  const auto tokenizer = Make(TokenizerFile({{"t", "h"}, {"th", "e"}, {"Ġ", "the"}, {"ð", "Ł"}}));
  for (const char* text : {"the router, the 12 experts", "  \n\t x  ",
                           "naïve 中文 😀👩‍👩‍👧", "it's IT'S'll"}) {
    const auto ids = tokenizer->Encode(text, true);
    ASSERT_TRUE(ids.ok());
    EXPECT_EQ(tokenizer->Decode(*ids, false), text);
  }
}

// A quadratic step anywhere would take minutes here (the suite's limit is 300 s).
TEST(TokenizerTest, EncodesAMegabyteOfAnythingInSeconds) {
  nlohmann::json file =
      TokenizerFile({{"a", "a"}, {"aa", "aa"}, {"aaaa", "aaaa"}, {"Ġ", "Ġ"}, {"a", "b"}});
  file["normalizer"] = {{"type", "NFC"}};
  file["added_tokens"] = {AddedTokenEntry(261, "<" + std::string(40, 'x') + ">")};
  const auto tokenizer = Make(file);
  const auto repeat = [](std::string_view unit) {
    std::string text;
    while (text.size() < 1'000'000) text += unit;
    return text;
  };
  EXPECT_THAT(*tokenizer->Encode(std::string(1 << 20, 'a'), true), SizeIs((1 << 20) / 8));
  for (const char* unit :
       {"ab", " ", " \n", "\u0301\u0316", "!?", "1", "<xxxxxxxx", "中", "a\u0301"}) {
    const std::string text = repeat(unit);
    const auto ids = tokenizer->Encode(text, true);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_GT(ids->size(), text.size() / 16) << unit;
  }
}

TEST(TokenizerTest, IsSharedBetweenThreads) {
  const auto tokenizer = Make(TokenizerFile({{"a", "b"}, {"Ġ", "ab"}}));
  const auto want = *tokenizer->Encode("ab ab cab", true);
  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 500; ++i) wrong[t] += *tokenizer->Encode("ab ab cab", true) != want;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ElementsAre(0, 0, 0, 0));
}

TEST(TokenizerTest, LoadsAFileAndNamesOneThatIsNotThere) {
  const TemporaryFolder folder;
  WriteFile(folder / "tokenizer.json", TokenizerFile().dump());
  const auto tokenizer = Tokenizer::Load(folder / "tokenizer.json");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->VocabSize(), 256);
  const auto missing = Tokenizer::Load(folder / "absent.json");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("absent.json"));
}

}  // namespace
}  // namespace penstock
