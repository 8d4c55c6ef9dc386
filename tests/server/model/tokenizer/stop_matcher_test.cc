#include "server/model/tokenizer/stop_matcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "server/model/tokenizer/utf8.h"

namespace penstock {
namespace {

using ::testing::HasSubstr;

StopMatcher Make(std::vector<std::string> strings) {
  auto created = StopStrings::Create(std::move(strings));
  EXPECT_TRUE(created.ok()) << created.status();
  return StopMatcher(*created);
}

TEST(StopMatcherTest, HoldsBackOnlyWhatMayStillBecomeAStopString) {
  StopMatcher matcher = Make({"STOP"});
  EXPECT_EQ(matcher.Push("abc S"), "abc ");
  EXPECT_EQ(matcher.Push("T"), "");
  EXPECT_EQ(matcher.Push("AND ST"), "STAND ");
  EXPECT_EQ(matcher.Push("OP after"), "");
  EXPECT_EQ(matcher.matched(), 0u);
  EXPECT_EQ(matcher.Push("more"), "");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, GivesBackWhatItHeldAtTheEnd) {
  StopMatcher matcher = Make({"STOP"});
  EXPECT_EQ(matcher.Push("x STO"), "x ");
  EXPECT_EQ(matcher.Flush(), "STO");
  EXPECT_EQ(matcher.matched(), std::nullopt);
}

TEST(StopMatcherTest, TakesTheEarliestEndThenTheLongestThenTheFirstListed) {
  StopMatcher earliest = Make({"abcd", "bc"});
  EXPECT_EQ(earliest.Push("xabcd"), "xa");
  EXPECT_EQ(earliest.matched(), 1u);
  StopMatcher longest = Make({"c", "bc", "abc"});
  EXPECT_EQ(longest.Push("xabc"), "x");
  EXPECT_EQ(longest.matched(), 2u);
  StopMatcher first = Make({"z", "ab", "ab"});
  EXPECT_EQ(first.Push("ab"), "");
  EXPECT_EQ(first.matched(), 1u);
}

TEST(StopMatcherTest, FallsBackIntoOverlaps) {
  StopMatcher matcher = Make({"aab"});
  EXPECT_EQ(matcher.Push("aaaa"), "aa");
  EXPECT_EQ(matcher.Push("b"), "");
  EXPECT_EQ(matcher.matched(), 0u);
}

TEST(StopMatcherTest, PassesEverythingThroughWithoutStopStrings) {
  StopMatcher matcher = Make({});
  EXPECT_EQ(matcher.Push("abc"), "abc");
  EXPECT_EQ(matcher.Flush(), "");
  EXPECT_EQ(matcher.matched(), std::nullopt);
}

TEST(StopMatcherTest, RefusesStringsThatCannotMatchText) {
  const absl::Status empty = StopStrings::Create({"a", ""}).status();
  EXPECT_EQ(empty.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(empty.message()), HasSubstr("stopping.stop[1]: got an empty string"));
  const absl::Status broken = StopStrings::Create({"\xC3"}).status();
  EXPECT_THAT(std::string(broken.message()),
              HasSubstr("stopping.stop[0]: got invalid UTF-8 at byte 0"));
}

// The definition, read slowly.
struct Naive {
  std::string sent;
  std::optional<size_t> matched;
};

Naive Reference(const std::string& text, const std::vector<std::string>& strings) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::optional<size_t> best;
    for (size_t i = 0; i < strings.size(); ++i) {
      if (!std::string_view(text).substr(0, end).ends_with(strings[i])) continue;
      if (!best || strings[i].size() > strings[*best].size()) best = i;
    }
    if (best) return {text.substr(0, end - strings[*best].size()), best};
  }
  return {text, std::nullopt};
}

bool MayStillMatch(std::string_view held, const std::vector<std::string>& strings) {
  return std::any_of(strings.begin(), strings.end(),
                     [&](const std::string& s) { return s.starts_with(held); });
}

TEST(StopMatcherTest, AgreesWithTheDefinitionOnRandomStreams) {
  const std::vector<std::string> letters = {"a", "b", "é", "è", "中"};
  std::mt19937 random(1);
  const auto make = [&](size_t most) {
    std::string text;
    for (size_t n = random() % most; n > 0; --n) text += letters[random() % letters.size()];
    return text;
  };
  int matches = 0;
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> strings(1 + random() % 4);
    for (std::string& s : strings) s = make(5) + letters[random() % letters.size()];
    StopMatcher matcher = Make(strings);
    std::string text, sent;
    for (int deltas = static_cast<int>(random() % 8); deltas > 0; --deltas) {
      const std::string delta = make(6);
      text += delta;
      const std::string part = matcher.Push(delta);
      ASSERT_EQ(FindInvalidUtf8(part), std::nullopt);
      sent += part;
      if (!matcher.matched()) {
        ASSERT_TRUE(text.starts_with(sent));
        ASSERT_TRUE(MayStillMatch(std::string_view(text).substr(sent.size()), strings))
            << "held back for nothing";
      }
    }
    sent += matcher.Flush();
    const Naive want = Reference(text, strings);
    ASSERT_EQ(matcher.matched(), want.matched);
    ASSERT_EQ(sent, want.sent);
    matches += want.matched.has_value();
  }
  EXPECT_GT(matches, 1000);
  EXPECT_LT(matches, 19000);
}

TEST(StopMatcherTest, StaysLinearWhereEveryByteFallsBack) {
  const std::string run(10'000, 'a');
  StopMatcher matcher = Make({run + "b"});
  size_t sent = 0;
  for (int i = 0; i < 2'000'000; ++i) sent += matcher.Push("a").size();
  EXPECT_EQ(sent, 2'000'000 - run.size());
}

}  // namespace
}  // namespace penstock
