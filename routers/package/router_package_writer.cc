#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "routers/package/router_json.h"
#include "routers/package/router_package.h"

namespace penstock {
namespace {

// Removed at the end, whatever it holds by then.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::string& beside) {
    static std::atomic<int> counter{0};
    path_ = absl::StrCat(beside, ".tmp-", getpid(), "-", counter++);
    error_ = mkdir(path_.c_str(), 0777) == 0 ? 0 : errno;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    if (error_ == 0) std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  int error() const { return error_; }

 private:
  std::string path_;
  int error_ = 0;
};

absl::Status Failure(const std::string& path, std::string_view what, int error) {
  return absl::ErrnoToStatus(error, absl::StrCat(path, ": ", std::string(what)));
}

absl::Status WriteText(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  return file ? absl::OkStatus() : Failure(path, "cannot write", errno);
}

}  // namespace

absl::Status SaveRouterPackage(const RouterPackage& package, const std::string& folder,
                               bool replace) {
  std::string target = folder;
  while (target.size() > 1 && target.back() == '/') target.pop_back();
  const TemporaryFolder temporary(target);
  if (temporary.error() != 0) {
    return Failure(temporary.path(), "cannot make the folder", temporary.error());
  }
  if (absl::Status s = WriteText(temporary.path() + "/router.json", FormatRouterJson(package));
      !s.ok()) {
    return s;
  }
  const std::vector<std::pair<std::string, TensorView>> tensors(package.tensors.begin(),
                                                                package.tensors.end());
  if (absl::Status s = WriteSafetensors(temporary.path() + "/router.safetensors", tensors);
      !s.ok()) {
    return s;
  }
  // Takes the place of nothing, or of an empty folder.
  if (rename(temporary.path().c_str(), target.c_str()) == 0) return absl::OkStatus();
  if (errno != ENOTEMPTY && errno != EEXIST)
    return Failure(target, "cannot rename into place", errno);
  if (!replace) {
    return absl::AlreadyExistsError(
        absl::StrCat(target, ": got a folder that is not empty, want a new name"));
  }
  if (renameat2(AT_FDCWD, temporary.path().c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) !=
      0) {
    return Failure(target, "cannot exchange with the new folder", errno);
  }
  return absl::OkStatus();
}

}  // namespace penstock
