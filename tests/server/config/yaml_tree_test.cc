#include "server/config/yaml_tree.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace penstock {
namespace {

using ::testing::HasSubstr;

std::string ErrorOf(std::string_view text) {
  const auto tree = ParseYaml(text);
  return tree.ok() ? "" : std::string(tree.status().message());
}

TEST(YamlTree, KeepsOrderAndText) {
  const auto tree = ParseYaml("b: 007\na: [x, \"y\", {}]\nc: ~\n");
  ASSERT_TRUE(tree.ok()) << tree.status();
  ASSERT_EQ(tree->fields.size(), 3);
  EXPECT_EQ(tree->fields[0].key, "b");
  EXPECT_EQ(tree->fields[0].value.scalar, "007");
  ASSERT_EQ(tree->fields[1].value.items.size(), 3);
  EXPECT_EQ(tree->fields[1].value.items[1].scalar, "y");
  EXPECT_EQ(tree->fields[1].value.items[2].kind, YamlNode::Kind::kMap);
  EXPECT_EQ(tree->Find("c")->kind, YamlNode::Kind::kNull);
}

TEST(YamlTree, EmptyTextIsNothing) {
  for (const char* text : {"", "\n", "# only a comment\n"}) {
    const auto tree = ParseYaml(text);
    ASSERT_TRUE(tree.ok()) << tree.status();
    EXPECT_EQ(tree->kind, YamlNode::Kind::kNull);
  }
}

TEST(YamlTree, SyntaxErrorsNameLineAndColumn) {
  EXPECT_THAT(ErrorOf("a: 1\nb: [1, 2\n"), HasSubstr("YAML, line 3, column 1: "));
}

TEST(YamlTree, RefusesWhatYamlWouldLetPass) {
  EXPECT_THAT(ErrorOf("a: 1\na: 2\n"), HasSubstr("line 2, column 1: got the key 'a' twice"));
  EXPECT_THAT(ErrorOf("a: 1\n---\nb: 2\n"), HasSubstr("got a second document"));
  EXPECT_THAT(ErrorOf("a: &x 1\nb: *x\n"), HasSubstr("got an anchor or alias"));
  EXPECT_THAT(ErrorOf("a: !!int 1\n"), HasSubstr("want no tags"));
  EXPECT_THAT(ErrorOf("[a]: 1\n"), HasSubstr("got a key that is no plain text"));
  EXPECT_THAT(ErrorOf("~: 1\n"), HasSubstr("got a key that is no plain text"));
}

TEST(YamlTree, BoundsDepthAndSize) {
  EXPECT_THAT(ErrorOf(std::string(33, '[') + std::string(33, ']')),
              HasSubstr("got more than 32 levels"));
  EXPECT_EQ(ErrorOf(std::string(32, '[') + std::string(32, ']')), "");
  EXPECT_THAT(ErrorOf(std::string(100'000, '[')), HasSubstr("YAML, line 1"));
  EXPECT_THAT(ErrorOf(std::string((1 << 20) + 1, ' ')), HasSubstr("want at most 1048576"));
}

TEST(YamlTree, AliasBombsAreRefusedAtTheFirstAnchor) {
  EXPECT_THAT(ErrorOf("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n"),
              HasSubstr("line 1"));
}

}  // namespace
}  // namespace penstock
