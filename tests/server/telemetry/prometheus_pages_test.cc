// The pages as a whole: what the README lists, and what promtool finds.
#include <cstdio>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/telemetry/prometheus_harness.h"

namespace penstock {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST_F(PrometheusTelemetryTest, TheReadmeListsExactlyTheSeriesThatExist) {
  Exercise();
  std::set<std::string> served;
  for (const std::string& page : {telemetry_->ServeMetrics(), telemetry_->ServeExpertMetrics()}) {
    for (const std::string& line : Split(page, '\n')) {
      const std::vector<std::string> words = absl::StrSplit(line, ' ');
      if (words.size() > 2 && words[1] == "TYPE") served.insert(words[2]);
    }
  }
  std::set<std::string> listed;
  std::ifstream readme(PENSTOCK_SOURCE_DIR "/server/telemetry/README.md");
  for (std::string line; std::getline(readme, line);) {
    if (!line.starts_with("| `")) continue;
    const std::string cell = line.substr(1, line.find('|', 1) - 1);
    for (const std::string& name : Split(cell, absl::ByAnyChar("`, "))) {
      listed.insert(name);
    }
  }
  EXPECT_THAT(served, SizeIs(testing::Gt(30)));
  EXPECT_EQ(served, listed);
}

TEST_F(PrometheusTelemetryTest, PromtoolFindsNothingToComplainAbout) {
  Exercise();
  for (const std::string& page : {telemetry_->ServeMetrics(), telemetry_->ServeExpertMetrics()}) {
    const std::string file = testing::TempDir() + "/penstock_metrics_page.txt";
    std::ofstream(file) << page;
    FILE* promtool = popen(("promtool check metrics < " + file + " 2>&1").c_str(), "r");
    ASSERT_NE(promtool, nullptr);
    std::string output;
    for (int c = std::fgetc(promtool); c != EOF; c = std::fgetc(promtool)) {
      output += static_cast<char>(c);
    }
    EXPECT_EQ(pclose(promtool), 0) << output;
    EXPECT_THAT(output, IsEmpty());
  }
}

}  // namespace
}  // namespace penstock
