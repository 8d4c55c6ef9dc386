#include "server/model/tokenizer/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/support/temporary_folder.h"

namespace penstock {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kQwen15[] =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% "
    "endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

const std::vector<ChatMessage> kHello = {{"user", "Hello"}};

std::string Rendered(std::string_view source, const std::vector<ChatMessage>& messages = kHello,
                     bool prompt = true) {
  const auto text = ChatTemplate::Parse(source).Render(messages, prompt);
  EXPECT_TRUE(text.ok()) << text.status();
  return text.value_or("");
}

TEST(ChatTemplateTest, TakesTheDefaultSystemPromptFromTheTemplate) {
  EXPECT_EQ(Rendered(kQwen15),
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(Rendered(kQwen15, {{"system", "S"}, {"user", "A"}, {"assistant", "B"}}, false),
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nA<|im_end|>\n<|im_start|>"
            "assistant\nB<|im_end|>\n");
}

TEST(ChatTemplateTest, CutsWhiteSpaceAsTransformersSetsJinjaUp) {
  EXPECT_EQ(Rendered("  {% if true %}\n x\n  {% endif %}\ny\n"), " x\ny")
      << "trim_blocks, lstrip_blocks, last newline";
  EXPECT_EQ(Rendered("a \n {%- if true -%} \n b \n {%- endif %}"), "ab");
  EXPECT_EQ(Rendered("  {%+ if true +%}\n{% endif %}"), "  \n");
  EXPECT_EQ(Rendered("a {{- 'b' -}} c {# gone #}\nd"), "abc d");
}

TEST(ChatTemplateTest, KeepsWhatALoopSetsInside) {
  EXPECT_EQ(
      Rendered(
          "{% set x = 'o' %}{% for m in messages %}{% set x = 'i' %}{{ x }}{% endfor %}{{ x }}"),
      "io");
}

TEST(ChatTemplateTest, BindsOperatorsAsJinjaDoes) {
  EXPECT_EQ(Rendered("{{ not false and 'a' + 'b' == 'ab' or none }}"), "True");
  EXPECT_EQ(Rendered("{{ 'a' ~ 1 + 'b' | trim }}"), "a1b");
  EXPECT_EQ(Rendered("{{ 'x' if messages is not defined else 'y' ~ (messages | length) }}"), "y1");
  EXPECT_EQ(Rendered("{{ messages[-1].content }}{{ messages[1:] | length }}{{ messages[5] }}"),
            "Hello0");
}

struct Refusal {
  const char* source;
  const char* what;
};

class RefusedTemplateTest : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusedTemplateTest, SaysWhatIsNotUnderstoodWhenChatIsUsed) {
  const ChatTemplate chat = ChatTemplate::Parse(GetParam().source);
  const auto text = chat.Render(kHello, true);
  EXPECT_EQ(text.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(text.status().message()), StartsWith("chat template: "));
  EXPECT_THAT(std::string(text.status().message()), HasSubstr(GetParam().what));
}

INSTANTIATE_TEST_SUITE_P(
    All, RefusedTemplateTest,
    ::testing::Values(
        Refusal{"\n{{ bos_token }}", "line 2: the name \"bos_token\" is not understood"},
        Refusal{"{{ messages | tojson }}", "the filter \"tojson\""},
        Refusal{"{{ messages is mapping }}", "the test \"mapping\""},
        Refusal{"{% macro f() %}{% endmacro %}", "the statement \"macro\""},
        Refusal{"{% raw %}{% endraw %}", "the statement \"raw\""},
        Refusal{"{% if true %}", "a block without endif"},
        Refusal{"{% endif %}", "\"endif\" without its beginning"},
        Refusal{"{% for m in messages %}{% for n in messages %}{% endfor %}{% endfor %}",
                "a loop within a loop"},
        Refusal{"{% for m in messages if m.role %}{% endfor %}", "\"if\""},
        Refusal{"{% set ns = namespace(x=1) %}", "the name \"namespace\""},
        Refusal{"{{ messages[0].content.strip() }}", "\"(\""},
        Refusal{"{{ loop.first }}", "the name \"loop\""}, Refusal{"{{ 'a", "a string has no end"},
        Refusal{"{{ '\\x41' }}", "the escape \\x"}, Refusal{"{{ 1.5 }}", "the number at"},
        Refusal{"{{ 1 * 2 }}", "\"* 2 }}\""}, Refusal{"{{", "a tag has no end"},
        Refusal{"{# x", "a comment has no end"},
        Refusal{"a\xC2\xA0{{ 'b' }}", "the white space U+00A0"},
        Refusal{"\xFF", "invalid UTF-8 at byte 0"},
        Refusal{"{{ messages }}", "a message or a list as text"},
        Refusal{"{{ messages[0].timestamp }}", "\"timestamp\" of a message"},
        Refusal{"{{ messages[0].items }}", "\"items\" of a message"},
        Refusal{"{{ 1 + 1 }}", "+ of anything but strings"},
        Refusal{"{{ messages[9].role }}", "an item of anything but messages"},
        Refusal{"{{ messages == messages }}", "comparing messages"},
        Refusal{"{% for m in messages %}{{ loop.cycle }}{% endfor %}", "loop.cycle"}));

TEST(ChatTemplateTest, SurvivesDeepNesting) {
  const std::string deep(100'000, '(');
  EXPECT_FALSE(ChatTemplate::Parse("{{ " + deep + " }}").usable().ok());
  std::string blocks, sums = "{{ ''";
  for (int i = 0; i < 10'000; ++i) blocks += "{% if true %}", sums += " + ''";
  EXPECT_FALSE(ChatTemplate::Parse(blocks).usable().ok());
  EXPECT_FALSE(ChatTemplate::Parse(sums + " }}").usable().ok());
}

TEST(ChatTemplateTest, PassesOnTheTemplatesOwnRefusal) {
  const auto text =
      ChatTemplate::Parse("{{ raise_exception('Only one system message.') }}").Render(kHello, true);
  EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(text.status().message()), HasSubstr("Only one system message."));
}

TEST(ChatTemplateTest, RefusesNoMessagesAndInvalidUtf8) {
  const ChatTemplate chat = ChatTemplate::Parse(kQwen15);
  EXPECT_EQ(chat.Render({}, true).status().message(), "messages: got none, want at least one");
  const std::vector<ChatMessage> broken = {{"user", "\xC3"}};
  EXPECT_EQ(chat.Render(broken, true).status().message(),
            "messages[0].content: got invalid UTF-8 at byte 0, want UTF-8");
}

TEST(ChatTemplateTest, LoadsFromEitherFileAndPrefersTheTemplateFile) {
  const TemporaryFolder folder;
  auto chat = ChatTemplate::Load(folder.path());
  ASSERT_TRUE(chat.ok());
  EXPECT_THAT(std::string(chat->usable().message()), HasSubstr("no chat template"));

  WriteFile(folder / "tokenizer_config.json", R"({"chat_template": "config"})");
  chat = ChatTemplate::Load(folder.path());
  ASSERT_TRUE(chat.ok());
  EXPECT_EQ(chat->Render(kHello, true).value_or(""), "config");

  WriteFile(
      folder / "tokenizer_config.json",
      R"({"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]})");
  chat = ChatTemplate::Load(folder.path());
  ASSERT_TRUE(chat.ok());
  EXPECT_EQ(chat->Render(kHello, true).value_or(""), "d");

  WriteFile(folder / "chat_template.jinja", "file");
  chat = ChatTemplate::Load(folder.path());
  ASSERT_TRUE(chat.ok());
  EXPECT_EQ(chat->Render(kHello, true).value_or(""), "file");
}

TEST(ChatTemplateTest, RefusesADamagedConfiguration) {
  const TemporaryFolder folder;
  for (const char* content :
       {"{", "[]", R"({"chat_template": 3})",
        R"({"chat_template": [{"name": "x", "template": "t"}]})", R"({"chat_template": [3]})"}) {
    WriteFile(folder / "tokenizer_config.json", content);
    EXPECT_EQ(ChatTemplate::Load(folder.path()).status().code(), absl::StatusCode::kInvalidArgument)
        << content;
  }
}

}  // namespace
}  // namespace penstock
