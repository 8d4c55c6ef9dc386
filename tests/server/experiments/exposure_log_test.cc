#include "server/experiments/exposure_log.h"

#include <cstdio>
#include <fstream>
#include <sstream>

#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/support/temporary_folder.h"

namespace penstock {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

RequestOutcome AnOutcome(const std::string& id) {
  RequestOutcome outcome;
  outcome.request.request_id = id;
  outcome.request.tenant = "acme";
  outcome.request.choice.experiment = "e";
  outcome.request.choice.revision = "abcd0123";
  outcome.request.choice.arm = "b";
  outcome.request.choice.reason = "experiment";
  outcome.request.choice.unit = "the user's name";
  outcome.request.time = absl::FromUnixSeconds(1'800'000'000);
  outcome.completion_tokens = 3;
  outcome.answered = true;
  outcome.time_to_first_token = absl::Seconds(2);
  outcome.prompt = {1, 2, 3};
  return outcome;
}

std::string Read(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(ExposureLogTest, ALineNamesTheUnitByItsHashAlone) {
  const std::string line = ExposureLog::LineOf(AnOutcome("r1"));
  const auto json = nlohmann::json::parse(line);
  EXPECT_EQ(json.at("time"), "2027-01-15T08:00:00+00:00");
  EXPECT_EQ(json.at("request_id"), "r1");
  EXPECT_EQ(json.at("arm"), "b");
  EXPECT_EQ(json.at("unit_hash").get<std::string>().size(), 16u);
  EXPECT_EQ(json.at("measures").at("first_token_seconds"), 2);
  EXPECT_FALSE(json.at("measures").contains("gaps"));
  EXPECT_THAT(line, Not(HasSubstr("name")));
  EXPECT_THAT(line, Not(HasSubstr("\"prompt\"")));
}

TEST(ExposureLogTest, AppendsAndGoesOnInANewFileOnceTheOldOneWasMoved) {
  TemporaryFolder folder;
  const std::string path = folder / "exposures.jsonl";
  {
    auto log = ExposureLog::Open(path);
    ASSERT_TRUE(log.ok()) << log.status();
    (*log)->Write(AnOutcome("r1"));
  }
  ASSERT_EQ(std::rename(path.c_str(), (folder / "moved").c_str()), 0);
  {
    auto log = ExposureLog::Open(path);
    ASSERT_TRUE(log.ok()) << log.status();
    (*log)->Write(AnOutcome("r2"));
    (*log)->Reopen();
    (*log)->Write(AnOutcome("r3"));
  }
  EXPECT_THAT(Read(folder / "moved"), HasSubstr("\"r1\""));
  EXPECT_THAT(Read(path), HasSubstr("\"r2\""));
  EXPECT_THAT(Read(path), HasSubstr("\"r3\""));
}

TEST(ExposureLogTest, APathThatCannotBeWrittenIsNamed) {
  EXPECT_THAT(ExposureLog::Open("/nonexistent/x.jsonl").status().message(),
              HasSubstr("experiments.exposure_log: got /nonexistent/x.jsonl"));
}

}  // namespace
}  // namespace penstock
