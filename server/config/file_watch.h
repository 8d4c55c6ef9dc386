// Whether the configuration file has become another one.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "absl/time/time.h"

namespace penstock {

// Looks at the file that a path leads to, links followed, again and again: an edit, a rename over
// it, and Kubernetes' swap of the link ..data are all the same to it, on every file system (inotify
// hears nothing of network ones). What changed is reported once it looks the same twice, so that no
// half-written file is read; a file that is gone is waited for. Thread-safe.
class FileWatch {
 public:
  struct Options {
    std::string path;
    absl::Duration interval = absl::Seconds(1);
    std::function<void()> on_change;  // on the watch's thread; must not destroy it
  };

  // What the file is now has been seen.
  explicit FileWatch(Options options);
  ~FileWatch();  // Stop

  // A thread that looks every `interval`.
  void Start();
  void Stop();

  // What the file is now was read otherwise.
  void MarkSeen();
  // One look; for tests, without Start.
  void Look();

 private:
  struct Identity {
    dev_t device = 0;
    ino_t inode = 0;
    std::int64_t size = 0, modified_ns = 0;

    bool operator==(const Identity&) const = default;
  };

  std::optional<Identity> IdentityNow() const;

  const Options options_;
  std::mutex mutex_;
  std::optional<Identity> seen_;      // nullopt: there was none
  std::optional<Identity> settling_;  // differs from seen_, and was so at the look before
  std::condition_variable changed_;
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace penstock
