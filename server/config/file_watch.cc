#include "server/config/file_watch.h"

#include <sys/stat.h>

#include <chrono>
#include <utility>

namespace penstock {

FileWatch::FileWatch(Options options) : options_(std::move(options)), seen_(IdentityNow()) {}

FileWatch::~FileWatch() { Stop(); }

void FileWatch::Start() {
  thread_ = std::thread([this] {
    const std::chrono::nanoseconds interval = absl::ToChronoNanoseconds(options_.interval);
    while (true) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        if (changed_.wait_for(lock, interval, [this] { return stopped_; })) return;
      }
      Look();
    }
  });
}

void FileWatch::Stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopped_ = true;
    changed_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

void FileWatch::MarkSeen() {
  std::lock_guard<std::mutex> lock(mutex_);
  seen_ = IdentityNow();
  settling_.reset();
}

void FileWatch::Look() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const std::optional<Identity> now = IdentityNow();
    if (!now || now == seen_) {
      settling_.reset();
      return;
    }
    if (now != settling_) {
      settling_ = now;
      return;
    }
    seen_ = now;
    settling_.reset();
  }
  options_.on_change();
}

std::optional<FileWatch::Identity> FileWatch::IdentityNow() const {
  struct stat status;
  if (stat(options_.path.c_str(), &status) != 0) return std::nullopt;
  return Identity{.device = status.st_dev,
                  .inode = status.st_ino,
                  .size = status.st_size,
                  .modified_ns = status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec};
}

}  // namespace penstock
