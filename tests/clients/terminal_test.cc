#include <gmock/gmock.h>

#include <condition_variable>
#include <csignal>
#include <mutex>
#include <sstream>

#include "clients/cpp/cli/answer_views.h"
#include "clients/cpp/terminal/interrupts.h"
#include "clients/cpp/terminal/table.h"
#include "clients/cpp/terminal/text.h"

namespace penstock::client {
namespace {

using ::testing::ElementsAre;

TEST(Text, CountsColumnsNotBytes) {
  EXPECT_EQ(DisplayWidth("abc"), 3);
  EXPECT_EQ(DisplayWidth("é"), 1);
  EXPECT_EQ(DisplayWidth("日本"), 4);
  EXPECT_EQ(DisplayWidth("e\xCC\x81"), 1);  // a combining accent
  EXPECT_EQ(DisplayWidth("\xff"), 1);
}

TEST(Text, AnswersCannotSteerTheTerminal) {
  EXPECT_EQ(Printable("a\x1b[2Jb\r\n\tc\xff"), "a\xEF\xBF\xBD[2Jb\n  c\xEF\xBF\xBD");
  EXPECT_EQ(Escaped("a\n\x1b\\ é\xff"), "a\\n\\x1b\\\\ é\\xff");
}

TEST(Text, WrapsAtSpacesAndBreaksLongWords) {
  EXPECT_THAT(Wrap("the quick brown fox", 10), ElementsAre("the quick", "brown fox"));
  EXPECT_THAT(Wrap("abcdefghij", 4), ElementsAre("abcd", "efgh", "ij"));
  EXPECT_THAT(Wrap("a\n\nb", 4), ElementsAre("a", "", "b"));
  EXPECT_THAT(Wrap("日本語", 4), ElementsAre("日本", "語"));
  EXPECT_THAT(Wrap("", 4), ElementsAre(""));
}

TEST(Text, WrappedLinesNeverExceedTheWidth) {
  const std::string text = "Why is the sky blue? Because 短い wavelengths scatter more strongly.";
  for (int width = 2; width < 40; ++width) {
    for (const std::string& line : Wrap(text, width)) EXPECT_LE(DisplayWidth(line), width);
  }
}

TEST(TextTable, AlignsByColumnsAndTrimsLines) {
  Table table({{"name", Align::kLeft}, {"n"}});
  table.AddRow({"é", "1"});
  table.AddRow({"long name", Grouped(-1234567)});
  EXPECT_EQ(table.ToString(),
            "name                n\n─────────  ──────────\né                   1\n"
            "long name  -1,234,567\n");
}

TEST(Panes, KeepTheTailWhereRoomIsShort) {
  std::istringstream in;
  std::ostringstream out;
  const Terminal plain{.in = in, .out = out, .err = out};
  const std::vector<Pane> panes = {{"a", "1\n2\n3", "done"}, {"b", "x", ""}};
  EXPECT_THAT(LayOutPanes(panes, 59, 2, plain),
              ElementsAre("a                            │ b                           ",
                          "2                            │ x", "3                            │",
                          "done                         │                             ", ""));
}

TEST(Panes, AreSpreadEvenlyOverBands) {
  std::istringstream in;
  std::ostringstream out;
  const Terminal plain{.in = in, .out = out, .err = out};
  const std::vector<Pane> panes(6, Pane{"t", "x", ""});
  // Three columns fit on 100: two bands of title, text, status and an empty line.
  const std::vector<std::string> lines = LayOutPanes(panes, 99, -1, plain);
  ASSERT_EQ(lines.size(), 8U);
  for (const std::string& line : lines) EXPECT_LE(DisplayWidth(line), 99);
}

TEST(Interrupts, ASignalCallsBackOnce) {
  std::mutex mutex;
  std::condition_variable called;
  int calls = 0;
  InterruptScope scope([&] {
    const std::lock_guard lock(mutex);
    ++calls;
    called.notify_all();
  });
  EXPECT_FALSE(scope.interrupted());
  ASSERT_EQ(std::raise(SIGINT), 0);
  std::unique_lock lock(mutex);
  called.wait(lock, [&] { return calls > 0; });
  EXPECT_TRUE(scope.interrupted());
  EXPECT_EQ(calls, 1);
}

TEST(Interrupts, WithoutASignalNothingIsCalled) {
  int calls = 0;
  {
    const InterruptScope scope([&] { ++calls; });
  }
  EXPECT_EQ(calls, 0);
}

}  // namespace
}  // namespace penstock::client
