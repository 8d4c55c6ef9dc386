// The arrows between the folders, held against every #include; and that no router kind is named
// outside routers/.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;
using ::testing::IsEmpty;
using ::testing::Not;

// The rooms, by the longest matching prefix, and what each may include beside itself. server/model
// is three rooms: the interface, the files of a checkpoint with their tokenizer, and the backends.
const std::map<std::string, std::set<std::string>>& Arrows() {
  static const auto* const arrows = new std::map<std::string, std::set<std::string>>([] {
    const std::set<std::string> leaves = {"proto", "kernels", "routers"};
    const auto with = [&](std::initializer_list<std::string> more) {
      std::set<std::string> all = leaves;
      all.insert(more);
      return all;
    };
    std::map<std::string, std::set<std::string>> m;
    m["proto"] = {};
    m["kernels"] = {};
    m["routers"] = {"kernels"};
    m["server/base"] = with({});
    for (const char* sibling : {"config", "telemetry", "experiments", "kvcache"}) {
      m[std::string("server/") + sibling] = with({"server/base"});
    }
    const std::set<std::string> below_scheduler =
        with({"server/base", "server/config", "server/telemetry", "server/experiments",
              "server/kvcache"});
    m["server/scheduler"] = below_scheduler;
    std::set<std::string> below = below_scheduler;
    below.insert("server/scheduler");
    m["server/model"] = below;
    below.insert("server/model");
    m["server/engine"] = below;
    below.insert("server/engine");
    m["server/training"] = m["server/rpc"] = m["server/http"] = below;
    // The composition root: main.cc and what stands beside it.
    m["server"] = below;
    // `penstock report` is a client of other servers, so the root alone may include clients too.
    m["server"].insert({"server/training", "server/rpc", "server/http", "clients"});
    m["clients"] = {"proto"};
    return m;
  }());
  return *arrows;
}

std::string RoomOf(const std::string& path) {
  std::string best;
  for (const auto& [room, allowed] : Arrows()) {
    if (path.rfind(room + "/", 0) == 0 && room.size() > best.size()) best = room;
  }
  return best;
}

struct SourceFile {
  std::string path;  // from the top
  std::string text;
};

std::vector<SourceFile> Sources(const std::vector<std::string>& tops) {
  const fs::path root = PENSTOCK_SOURCE_DIR;
  const std::set<std::string> endings = {".h", ".cc", ".cu", ".cuh", ".proto"};
  std::vector<SourceFile> files;
  for (const std::string& top : tops) {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root / top)) {
      if (!entry.is_regular_file() || !endings.contains(entry.path().extension())) continue;
      std::ostringstream text;
      text << std::ifstream(entry.path()).rdbuf();
      files.push_back({fs::relative(entry.path(), root).generic_string(), text.str()});
    }
  }
  return files;
}

// Includes of our own files, as paths from the top; generated protobuf headers as proto/….
std::vector<std::string> OwnIncludes(const std::string& text) {
  static const std::regex include(R"(#\s*include\s*\"([^\"]+)\")");
  std::vector<std::string> found;
  for (std::sregex_iterator it(text.begin(), text.end(), include), end; it != end; ++it) {
    const std::string path = (*it)[1];
    if (path.find(".pb.h") != std::string::npos) {
      found.push_back("proto/" + path);
    } else if (!RoomOf(path).empty()) {
      found.push_back(path);
    }
  }
  return found;
}

const std::vector<std::string> kCodeFolders = {"kernels", "routers", "server", "clients"};

TEST(ArchitectureTest, EveryIncludeFollowsAnArrow) {
  const std::vector<SourceFile> files = Sources(kCodeFolders);
  ASSERT_THAT(files, Not(IsEmpty()));
  int arrows = 0;
  for (const SourceFile& file : files) {
    const std::string room = RoomOf(file.path);
    ASSERT_FALSE(room.empty()) << file.path << " stands in no room";
    for (const std::string& included : OwnIncludes(file.text)) {
      const std::string target = RoomOf(included);
      ++arrows;
      EXPECT_TRUE(target == room || Arrows().at(room).contains(target))
          << file.path << " includes " << included << ": " << room << " may not include " << target;
    }
  }
  EXPECT_GT(arrows, 100);
}

// Types that a file defines at the level of a namespace with a name, as "penstock::client::Client".
std::vector<std::string> NamedTypes(const std::string& text) {
  static const std::regex opened(R"(^(?:inline )?namespace ?([\w:]*) ?\{)");
  static const std::regex type(
      R"(^(?:struct|class|enum class) (\w+)(?: final)?(?: ?:[^:;][^;]*| )\{)");
  std::vector<std::string> names, namespaces;
  std::istringstream lines(text);
  std::smatch match;
  for (std::string line; std::getline(lines, line);) {
    if (std::regex_search(line, match, opened)) {
      namespaces.push_back(match[1]);
    } else if (line.starts_with("}  // namespace") && !namespaces.empty()) {
      namespaces.pop_back();
    } else if (std::regex_search(line, match, type) &&
               std::find(namespaces.begin(), namespaces.end(), "") == namespaces.end()) {
      std::string name;
      for (const std::string& outer : namespaces) name += outer + "::";
      names.push_back(name + match[1].str());
    }
  }
  return names;
}

// Rooms that include nothing of each other are linked together all the same: of two types of one
// name the linker takes the functions of either, and nothing warns of it.
TEST(ArchitectureTest, EveryTypeIsDefinedOnce) {
  std::map<std::string, std::string> owners;
  for (const SourceFile& file : Sources(kCodeFolders)) {
    for (const std::string& name : NamedTypes(file.text)) {
      const auto [owner, is_new] = owners.emplace(name, file.path);
      EXPECT_TRUE(is_new) << name << " stands in " << owner->second << " and in " << file.path;
    }
  }
  EXPECT_GT(owners.size(), 300);
}

TEST(ArchitectureTest, TorchStaysInItsFolders) {
  static const std::regex torch(R"(#\s*include\s*[<\"](torch|ATen|c10)/)");
  for (const SourceFile& file : Sources(kCodeFolders)) {
    const bool may =
        (file.path.rfind("routers/", 0) == 0 && file.path.rfind("routers/package/", 0) != 0) ||
        file.path.rfind("server/model/reference/", 0) == 0 ||
        file.path.rfind("server/model/cuda/", 0) == 0 ||
        file.path.rfind("server/training/", 0) == 0;
    if (may) continue;
    EXPECT_FALSE(std::regex_search(file.text, torch)) << file.path << " includes torch";
  }
}

TEST(ArchitectureTest, NoSourceIncludesTorchAndGeneratedMessages) {
  static const std::regex torch(R"(#\s*include\s*[<\"](torch|ATen|c10)/)");
  for (const SourceFile& file : Sources(kCodeFolders)) {
    EXPECT_FALSE(std::regex_search(file.text, torch) &&
                 file.text.find(".pb.h\"") != std::string::npos)
        << file.path;
  }
}

TEST(ArchitectureTest, NoHeaderAsksForCuda) {
  static const std::regex asks(R"(#\s*(if|ifdef|ifndef|elif)[^\n]*CUDA)");
  for (const SourceFile& file : Sources(kCodeFolders)) {
    if (!file.path.ends_with(".h")) continue;
    EXPECT_FALSE(std::regex_search(file.text, asks)) << file.path;
  }
}

TEST(ArchitectureTest, RouterKindsAreNamedInRoutersAlone) {
  const std::string ending = "_router.cc";
  std::vector<std::string> kinds;
  for (const SourceFile& file : Sources({"routers"})) {
    const std::string name = fs::path(file.path).filename();
    if (name.ends_with(ending)) kinds.push_back(name.substr(0, name.size() - ending.size()));
  }
  ASSERT_THAT(kinds, Not(IsEmpty()));
  for (const SourceFile& file : Sources({"kernels", "server", "clients", "proto"})) {
    // Names of a checkpoint's tensors are not ours: "mlp" stands in them.
    if (file.path.rfind("server/model/checkpoint/", 0) == 0) continue;
    std::istringstream lines(file.text);
    for (std::string line; std::getline(lines, line);) {
      line = line.substr(0, line.find("//"));
      for (const std::string& kind : kinds) {
        EXPECT_EQ(line.find("\"" + kind + "\""), std::string::npos) << file.path << ": " << line;
      }
    }
  }
}

}  // namespace
}  // namespace penstock
