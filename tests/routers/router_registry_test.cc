// The list of kinds, held against the files and against the README.
#include "routers/router_registry.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/routers/sample_routers.h"

namespace penstock {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

const std::filesystem::path kSource = PENSTOCK_SOURCE_DIR;

// Names of "<kind>_router<suffix>" in a folder, sorted.
std::vector<std::string> KindFiles(const std::filesystem::path& folder, const std::string& suffix) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string file = entry.path().filename();
    if (file.ends_with("_router" + suffix))
      names.push_back(file.substr(0, file.size() - 7 - suffix.size()));
  }
  std::sort(names.begin(), names.end());
  return names;
}

// README rows: kind → {parameters, FLOPs per token} at d = 2048, E = 60, k = 4 and a vocabulary of
// 151,936.
std::map<std::string, std::pair<std::int64_t, std::int64_t>> ReadmeTable() {
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> rows;
  std::ifstream file(kSource / "routers" / "README.md");
  const std::regex row(R"(\| `([a-z_0-9]+)` \|.*\| ([0-9,]+) \| ([0-9,]+) \|)");
  for (std::string line; std::getline(file, line);) {
    std::smatch match;
    if (!std::regex_match(line, match, row)) continue;
    const auto number = [&](int i) {
      return std::stoll(absl::StrReplaceAll(match[i].str(), {{",", ""}}));
    };
    rows[match[1]] = {number(2), number(3)};
  }
  return rows;
}

TEST(RouterRegistryTest, KindsAreTheFilesTheTestsAndTheReadmeRows) {
  const std::vector<std::string> kinds = sample::Kinds();
  ASSERT_THAT(kinds, Not(IsEmpty()));
  EXPECT_EQ(KindFiles(kSource / "routers", ".cc"), kinds);
  EXPECT_EQ(KindFiles(kSource / "tests" / "routers", "_test.cc"), kinds);
  std::vector<std::string> rows;
  for (const auto& [name, figures] : ReadmeTable()) rows.push_back(name);
  EXPECT_EQ(rows, kinds);
}

TEST(RouterRegistryTest, ReadmeFiguresAreThoseOfTheCode) {
  const RouterShape shape{
      .d = 2048, .experts = 60, .top_k = 4, .layers = {0}, .vocab_size = 151936};
  const auto table = ReadmeTable();
  ASSERT_FALSE(table.empty());
  for (const auto& [name, figures] : table) {
    const RouterKind& kind = sample::Kind(name);
    const auto spec = RouterSpec::Create(kind, WithFallbacks(kind, shape, {}), shape);
    ASSERT_TRUE(spec.ok()) << spec.status();
    EXPECT_EQ(spec->ParametersPerLayer(), figures.first) << name;
    EXPECT_EQ(spec->FlopsPerToken(), figures.second) << name;
  }
}

// The figures of the specification itself, so that code and README cannot drift together.
TEST(RouterRegistryTest, FiguresAreThoseOfTheSpecification) {
  const std::map<std::string, std::pair<std::int64_t, std::int64_t>> specified = {
      {"linear", {122880, 245760}},
      {"attention", {269824, 540848}},
      {"mlp", {539964, 1081344}},
      {"hybrid", {392706, 786848}},
      {"hash", {1, 0}},
      {"mlp_hadamard", {1171456, 2349056}},
  };
  const auto table = ReadmeTable();
  for (const auto& [name, figures] : specified) {
    ASSERT_TRUE(table.contains(name)) << name;
    EXPECT_EQ(table.at(name), figures) << name;
  }
}

TEST(RouterRegistryTest, UnknownKindsAreAnsweredWithTheKnownOnes) {
  const auto factory = RouterRegistry::Global().Factory("no_such_kind");
  EXPECT_EQ(factory.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(factory.status().message());
  EXPECT_THAT(message, HasSubstr("no_such_kind"));
  for (const std::string& kind : sample::Kinds()) EXPECT_THAT(message, HasSubstr(kind));
}

TEST(RouterRegistryTest, HasTheCheckpointsOwnKind) {
  EXPECT_TRUE(RouterRegistry::Global().Factory(kCheckpointRouter).ok());
}

TEST(RouterRegistryDeathTest, RefusesDuplicates) {
  RouterRegistry registry;
  const RouterKind kind = sample::Kind(kCheckpointRouter);
  const RouterFactory factory = *RouterRegistry::Global().Factory(kCheckpointRouter);
  registry.Register(kind, factory);
  EXPECT_DEATH(registry.Register(kind, factory), "is registered twice");
}

}  // namespace
}  // namespace penstock
