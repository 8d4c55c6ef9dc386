#include "server/model/checkpoint/output_folder.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <utility>

#include "absl/strings/str_cat.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

absl::Status Failure(const std::error_code& error, const std::string& what) {
  return absl::ErrnoToStatus(error.value(), what);
}

}  // namespace

absl::StatusOr<OutputFolder> OutputFolder::Create(const std::string& path) {
  std::error_code error;
  // "models/demo/" names the folder "models/demo".
  fs::path place = fs::absolute(path, error).lexically_normal();
  if (!place.has_filename()) place = place.parent_path();
  if (error) return Failure(error, absl::StrCat(path, ": cannot resolve"));
  if (fs::exists(place, error)) {
    const bool empty_folder = fs::is_directory(place, error) && fs::is_empty(place, error);
    if (error) return Failure(error, absl::StrCat(path, ": cannot read"));
    if (!empty_folder) {
      return absl::AlreadyExistsError(
          absl::StrCat(path, ": is there already, want a new or an empty folder"));
    }
  }
  static std::atomic<int> count{0};
  const std::string temporary =
      absl::StrCat(place.string(), ".", ::getpid(), ".", count.fetch_add(1), ".tmp");
  fs::create_directories(temporary, error);
  if (error) return Failure(error, absl::StrCat(temporary, ": cannot create"));
  return OutputFolder(place.string(), temporary);
}

OutputFolder::OutputFolder(std::string path, std::string temporary)
    : path_(std::move(path)), temporary_(std::move(temporary)) {}

OutputFolder::OutputFolder(OutputFolder&& other) noexcept
    : path_(std::move(other.path_)), temporary_(std::exchange(other.temporary_, "")) {}

OutputFolder::~OutputFolder() {
  std::error_code ignored;  // nothing to tell it to; a folder named .tmp is left
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

absl::Status OutputFolder::WriteText(const std::string& name, std::string_view text) const {
  std::ofstream file(File(name), std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (!file) return absl::ErrnoToStatus(errno, absl::StrCat(File(name), ": cannot write"));
  return absl::OkStatus();
}

absl::Status OutputFolder::Commit() {
  // Replaces an empty folder; fails on one that was filled meanwhile.
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, absl::StrCat(temporary_, ": cannot rename to ", path_));
  }
  temporary_.clear();
  return absl::OkStatus();
}

}  // namespace penstock
