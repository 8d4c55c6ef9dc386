#include "server/base/log.h"

#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace penstock {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class LogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SetLogSink([this](std::string_view line) { lines_.emplace_back(line); });
  }
  void TearDown() override {
    SetLogSink({});
    SetLogFormat(LogFormat::kText);
  }
  std::vector<std::string> lines_;
};

TEST_F(LogTest, TextLineHasLevelMessageAndFields) {
  Log(LogLevel::kWarning, "reload failed",
      {{"path", std::string("a b")}, {"tries", std::int64_t{3}}, {"ok", false}});
  ASSERT_EQ(lines_.size(), 1u);
  EXPECT_THAT(lines_[0], HasSubstr(" warning reload failed path=\"a b\" tries=3 ok=false"));
}

TEST_F(LogTest, NoValueBreaksTheLine) {
  Log(LogLevel::kInfo, "request", {{"prompt", std::string("one\ntwo\"three")}});
  EXPECT_THAT(lines_[0], AllOf(Not(HasSubstr("\n")), HasSubstr(R"(prompt="one\ntwo\"three")")));
}

TEST_F(LogTest, EmptyTextIsLeftOut) {
  Log(LogLevel::kInfo, "request", {{"prompt", std::string()}, {"code", std::string("OK")}});
  EXPECT_THAT(lines_[0], AllOf(Not(HasSubstr("prompt")), HasSubstr("code=OK")));
}

TEST_F(LogTest, JsonLineParses) {
  SetLogFormat(LogFormat::kJson);
  Log(LogLevel::kInfo, "request", {{"seconds", 0.25}, {"id", std::string("\xff\"")}});
  const nlohmann::json line = nlohmann::json::parse(lines_.at(0));
  EXPECT_EQ(line["level"], "info");
  EXPECT_EQ(line["message"], "request");
  EXPECT_EQ(line["seconds"], 0.25);
}

TEST_F(LogTest, ThreadsNeverShareALine) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < 100; ++i) Log(LogLevel::kInfo, "m", {{"k", std::string(50, 'x')}});
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_EQ(lines_.size(), 400u);
  for (const std::string& line : lines_)
    EXPECT_THAT(line, HasSubstr("info m k=" + std::string(50, 'x')));
}

}  // namespace
}  // namespace penstock
