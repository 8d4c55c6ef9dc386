#include "server/experiments/guardrails/halts_page.h"

#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace penstock {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(HaltsPageTest, IsReadAsItWasWritten) {
  const ArmHalt halt{.source = HaltSource::kGuardrail,
                     .reason = "error_rate is 0.2, \"quoted\", über",
                     .time = absl::FromUnixNanos(1'800'000'000'123'456'789),
                     .metric = "error_rate",
                     .value = 0.2,
                     .bound = 0.01};
  const auto read = ReadHaltsPage(WriteHaltsPage({{"trial", "new", halt}, {"two", "b", {}}}));
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), 2u);
  const NamedHalt& named = (*read)[0];
  EXPECT_EQ(named.experiment, "trial");
  EXPECT_EQ(named.arm, "new");
  EXPECT_EQ(named.halt.source, halt.source);
  EXPECT_EQ(named.halt.reason, halt.reason);
  EXPECT_EQ(named.halt.time, halt.time);
  EXPECT_EQ(named.halt.metric, halt.metric);
  EXPECT_EQ(named.halt.value, halt.value);
  EXPECT_EQ(named.halt.bound, halt.bound);
  EXPECT_THAT(*ReadHaltsPage(WriteHaltsPage({})), IsEmpty());
}

TEST(HaltsPageTest, WhateverElseIsReadIsRefused) {
  for (const std::string page :
       {"", "null", "[]", "{}", "{\"halts\": {}}", "{\"halts\": [1]}",
        "{\"halts\": [{\"experiment\": \"e\"}]}", "<html>404</html>",
        "{\"halts\": [{\"experiment\": 1, \"arm\": \"b\", \"source\": \"operator\", \"reason\": "
        "\"\", \"time_ns\": 1, \"metric\": \"\", \"value\": 0, \"bound\": 0}]}"}) {
    EXPECT_EQ(ReadHaltsPage(page).status().code(), absl::StatusCode::kInvalidArgument) << page;
  }
  std::string page = WriteHaltsPage({{"e", "b", {.source = HaltSource::kOperator}}});
  page.replace(page.find("operator"), 8, "nobody");
  EXPECT_THAT(std::string(ReadHaltsPage(page).status().message()), HasSubstr("source: got nobody"));
  EXPECT_THAT(
      std::string(ReadHaltsPage(WriteHaltsPage({{"e", "b", {.reason = std::string(5000, 'x')}}}))
                      .status()
                      .message()),
      HasSubstr("got a text of 5000 bytes, want at most 4096"));
  EXPECT_THAT(
      std::string(ReadHaltsPage(WriteHaltsPage(std::vector<NamedHalt>(1001))).status().message()),
      HasSubstr("got 1001 entries"));
}

}  // namespace
}  // namespace penstock
