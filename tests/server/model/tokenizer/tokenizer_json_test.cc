// What a tokenizer.json may not be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "server/model/tokenizer/tokenizer.h"
#include "tests/server/model/tokenizer/tokenizer_file.h"

namespace penstock {
namespace {

using ::testing::StartsWith;
using Json = nlohmann::json;

struct Damage {
  const char* pointer;  // JSON pointer of the value that is replaced
  Json value;
  const char* message;
};

Json WithEverything() {
  Json file = TokenizerFile({{"a", "b"}, {"ab", "c"}});
  file["normalizer"] = {{"type", "NFC"}};
  file["added_tokens"] = {AddedTokenEntry(258, "<s>"), AddedTokenEntry(259, "<t>")};
  file["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers",
                            {{{"type", "Split"},
                              {"pattern", {{"Regex", "\\p{L}+"}}},
                              {"behavior", "Isolated"},
                              {"invert", false}},
                             {{"type", "Digits"}, {"individual_digits", true}},
                             {{"type", "ByteLevel"},
                              {"add_prefix_space", false},
                              {"trim_offsets", true},
                              {"use_regex", false}}}}};
  file["post_processor"] = {{"type", "ByteLevel"}, {"trim_offsets", false}};
  return file;
}

std::vector<Damage> Damages() {
  return {
      {"", Json::array(), "the file: got an array, want an object"},
      {"/version", "2.0", "version: got \"2.0\", want \"1.0\""},
      {"/extra", 1, "extra: got 1, want no such key"},
      {"/truncation", {{"max_length", 5}}, "truncation: got an object, want null"},
      {"/padding", true, "padding: got true, want null"},
      {"/normalizer/type", "NFKC", "normalizer.type: got \"NFKC\", want \"NFC\""},
      {"/normalizer", "NFC", "normalizer: got \"NFC\", want an object"},
      {"/pre_tokenizer", nullptr, "pre_tokenizer: got null, want an object"},
      {"/pre_tokenizer/type", "Whitespace",
       "pre_tokenizer.type: got \"Whitespace\", want \"ByteLevel\""},
      {"/pre_tokenizer/pretokenizers", Json::array(),
       "pre_tokenizer.pretokenizers: got an array, want a list that ends"},
      {"/pre_tokenizer/pretokenizers/0/behavior", "Removed",
       "pre_tokenizer.pretokenizers[0].behavior: got \"Removed\", want \"Isolated\""},
      {"/pre_tokenizer/pretokenizers/0/invert", true,
       "pre_tokenizer.pretokenizers[0].invert: got true, want false"},
      {"/pre_tokenizer/pretokenizers/0/pattern",
       {{"String", " "}},
       "pre_tokenizer.pretokenizers[0].pattern.String: got \" \", want no such key"},
      {"/pre_tokenizer/pretokenizers/0/pattern/Regex", "(",
       "pre_tokenizer.pretokenizers[0].pattern.Regex: pattern does not compile"},
      {"/pre_tokenizer/pretokenizers/0/pattern/Regex", "a*",
       "pre_tokenizer.pretokenizers[0].pattern.Regex: pattern may match the empty string"},
      {"/pre_tokenizer/pretokenizers/0/pattern/Regex", "\\h+",
       "pre_tokenizer.pretokenizers[0].pattern.Regex: \"\\h\" is not supported"},
      {"/pre_tokenizer/pretokenizers/1/type", "ByteLevel",
       "pre_tokenizer.pretokenizers[1].type: got \"ByteLevel\", want \"Split\" or"},
      {"/pre_tokenizer/pretokenizers/1/individual_digits", 1,
       "pre_tokenizer.pretokenizers[1].individual_digits: got 1, want true or false"},
      {"/pre_tokenizer/pretokenizers/2/type", "Digits",
       "pre_tokenizer.pretokenizers[2].type: got \"Digits\", want \"ByteLevel\""},
      {"/post_processor/type", "TemplateProcessing",
       "post_processor.type: got \"TemplateProcessing\", want \"ByteLevel\""},
      {"/decoder", nullptr, "decoder: got null, want an object"},
      {"/decoder/type", "WordPiece", "decoder.type: got \"WordPiece\", want \"ByteLevel\""},
      {"/model", nullptr, "model: got null, want an object"},
      {"/model/type", "Unigram", "model.type: got \"Unigram\", want \"BPE\""},
      {"/model/dropout", 0.1, "model.dropout: got 0.1, want null or 0"},
      {"/model/byte_fallback", true, "model.byte_fallback: got true, want false"},
      {"/model/continuing_subword_prefix", "##",
       "model.continuing_subword_prefix: got \"##\", want null or \"\""},
      {"/model/end_of_word_suffix", "</w>",
       "model.end_of_word_suffix: got \"</w>\", want null or \"\""},
      {"/model/vocab", Json::object(), "model.vocab: got an object, want an object of tokens"},
      {"/model/vocab",
       {{"hello", 0}},
       "model.vocab: got no token of a single byte, want a byte-level vocabulary"},
      {"/model/vocab/ab", -1, "model.vocab[\"ab\"]: got -1, want an id from 0 to 4194303"},
      {"/model/vocab/ab", 4194304,
       "model.vocab[\"ab\"]: got 4194304, want an id from 0 to 4194303"},
      {"/model/vocab/ab", 1.5, "model.vocab[\"ab\"]: got 1.5, want an id"},
      {"/model/vocab/abc", 256,
       "model.vocab[\"abc\"]: got 256, the id of \"ab\", want an id of its own"},
      {"/model/merges", nullptr, "model.merges: got null, want a list"},
      {"/model/merges/0", "ab", "model.merges[0]: got \"ab\", want two tokens"},
      {"/model/merges/0", "a b c", "model.merges[0]: got \"a b c\", want two tokens"},
      {"/model/merges/0",
       {"a", "b", "c"},
       "model.merges[0]: got an array, want \"a b\" or [\"a\", \"b\"]"},
      {"/model/merges/0",
       {"a", 1},
       "model.merges[0]: got an array, want \"a b\" or [\"a\", \"b\"]"},
      {"/model/merges/0", "a z", "model.merges[0]: got \"az\", want a token of model.vocab"},
      {"/model/merges/1", "a b",
       "model.merges[1]: got \"a\" and \"b\" again, want one merge for each pair"},
      {"/added_tokens", 3, "added_tokens: got 3, want a list"},
      {"/added_tokens/0", "x", "added_tokens[0]: got \"x\", want an object"},
      {"/added_tokens/0/content", "",
       "added_tokens[0].content: got \"\", want a text that isn't empty"},
      {"/added_tokens/0/id", 300, "added_tokens[0].id: got 300, want 258 for \"<s>\""},
      {"/added_tokens/0/id", "258", "added_tokens[0].id: got \"258\", want an id"},
      {"/added_tokens/0/content", "ab", "added_tokens[0].id: got 258, want 256 for \"ab\""},
      {"/added_tokens/1/content", "<s>", "added_tokens[1].id: got 259, want 258 for \"<s>\""},
      {"/added_tokens/0/lstrip", "no", "added_tokens[0].lstrip: got \"no\", want true or false"},
      {"/added_tokens/0/color", "red", "added_tokens[0].color: got \"red\", want no such key"},
  };
}

TEST(TokenizerJsonTest, TakesTheFileThatTheDamagesStartFrom) {
  const auto tokenizer = Tokenizer::Parse(WithEverything().dump());
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
}

class DamagedTokenizerJsonTest : public ::testing::TestWithParam<Damage> {};

TEST_P(DamagedTokenizerJsonTest, IsRefusedByKeyAndValue) {
  Json file = WithEverything();
  file[Json::json_pointer(GetParam().pointer)] = GetParam().value;
  const auto tokenizer = Tokenizer::Parse(file.dump(), "some/tokenizer.json");
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(tokenizer.status().message()),
              StartsWith(std::string("some/tokenizer.json: ") + GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(All, DamagedTokenizerJsonTest, ::testing::ValuesIn(Damages()));

TEST(TokenizerJsonTest, RefusesAnUnknownTokenThatBytesWouldFallBackTo) {
  Json file = TokenizerFile();
  file["model"]["unk_token"] = "a";
  EXPECT_TRUE(Tokenizer::Parse(file.dump()).ok()) << "every byte has a token: it is never used";
  file["model"]["vocab"].erase(LettersOfBytes("\x04"));
  EXPECT_EQ(Tokenizer::Parse(file.dump()).status().message(),
            "tokenizer.json: model.unk_token: got \"a\", want null, or a token for each byte (1 "
            "have none)");
}

TEST(TokenizerJsonTest, SaysWhereAFileStopsBeingJson) {
  for (const char* text :
       {"", "{", "{\"version\": \"1.0\",}", "\xFF\xFE", "{\"a\": \"\\ud800\"}"}) {
    const auto tokenizer = Tokenizer::Parse(text);
    ASSERT_FALSE(tokenizer.ok()) << text;
    EXPECT_THAT(std::string(tokenizer.status().message()), StartsWith("tokenizer.json: not JSON: "))
        << text;
  }
}

TEST(TokenizerJsonTest, SurvivesDeepNesting) {
  const auto tokenizer = Tokenizer::Parse(std::string(100'000, '[') + std::string(100'000, ']'));
  EXPECT_EQ(tokenizer.status().message(), "tokenizer.json: the file: got an array, want an object");
}

TEST(TokenizerJsonTest, NeverCrashesOnAFileCutOrChangedAnywhere) {
  const std::string whole = WithEverything().dump();
  std::mt19937 random(1);
  int refused = 0;
  for (int i = 0; i < 2000; ++i) {
    std::string text = whole;
    if (i % 2 == 0) {
      text.resize(random() % text.size());
    } else {
      for (int changes = 0; changes < 3; ++changes)
        text[random() % text.size()] = static_cast<char>(random());
    }
    const auto tokenizer = Tokenizer::Parse(text);
    if (!tokenizer.ok()) {
      ++refused;
    } else {
      EXPECT_TRUE((*tokenizer)->Encode("abc <s> 123 é", true).ok());
    }
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace penstock
