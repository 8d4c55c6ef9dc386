#include "server/config/file_watch.h"

#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>

#include "gtest/gtest.h"
#include "tests/support/temporary_folder.h"

namespace penstock {
namespace {

class FileWatchTest : public ::testing::Test {
 protected:
  FileWatchTest() { Write(path_, "a"); }

  static void Write(const std::string& path, const std::string& content) {
    std::ofstream(path, std::ios::binary) << content;
  }
  FileWatch::Options Options(const std::string& path) {
    return {.path = path, .interval = absl::Milliseconds(1), .on_change = [this] {
              std::lock_guard<std::mutex> lock(mutex_);
              ++changes_;
              changed_.notify_all();
            }};
  }

  TemporaryFolder folder_;
  const std::string path_ = folder_.path() + "/config.yaml";
  std::mutex mutex_;
  std::condition_variable changed_;
  int changes_ = 0;
};

TEST_F(FileWatchTest, ReportsAChangeOnceItLooksTheSameTwice) {
  FileWatch watch(Options(path_));
  watch.Look();
  EXPECT_EQ(changes_, 0);
  Write(path_, "ab");
  watch.Look();
  EXPECT_EQ(changes_, 0) << "it may still be written";
  Write(path_, "abc");
  watch.Look();
  EXPECT_EQ(changes_, 0);
  watch.Look();
  EXPECT_EQ(changes_, 1);
  watch.Look();
  EXPECT_EQ(changes_, 1);
}

TEST_F(FileWatchTest, FollowsTheLinkThatKubernetesSwaps) {
  // As a mounted ConfigMap: config.yaml -> ..data/config.yaml, ..data -> ..1.
  const std::string mount = folder_.path() + "/mount";
  for (const char* version : {"/..1", "/..2"}) {
    std::filesystem::create_directories(mount + version);
    Write(mount + version + "/config.yaml", "same size");
  }
  std::filesystem::create_symlink("..1", mount + "/..data");
  std::filesystem::create_symlink("..data/config.yaml", mount + "/config.yaml");
  FileWatch watch(Options(mount + "/config.yaml"));
  std::filesystem::create_symlink("..2", mount + "/..data_tmp");
  std::filesystem::rename(mount + "/..data_tmp", mount + "/..data");
  std::filesystem::remove_all(mount + "/..1");
  watch.Look();
  watch.Look();
  EXPECT_EQ(changes_, 1);
}

TEST_F(FileWatchTest, WaitsForAFileThatIsGone) {
  FileWatch watch(Options(path_));
  std::filesystem::remove(path_);
  for (int i = 0; i < 3; ++i) watch.Look();
  EXPECT_EQ(changes_, 0);
  Write(path_, "again");
  watch.Look();
  watch.Look();
  EXPECT_EQ(changes_, 1);
}

TEST_F(FileWatchTest, WhatWasReadOtherwiseIsNoChange) {
  FileWatch watch(Options(path_));
  Write(path_, "ab");
  watch.Look();
  watch.MarkSeen();
  watch.Look();
  watch.Look();
  EXPECT_EQ(changes_, 0);
}

TEST_F(FileWatchTest, LooksByItself) {
  FileWatch watch(Options(path_));
  watch.Start();
  Write(path_, "ab");
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return changes_ == 1; });
}

}  // namespace
}  // namespace penstock
