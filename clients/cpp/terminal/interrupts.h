// Ctrl-C that ends what runs instead of the process.
#pragma once

#include <functional>

namespace penstock::client {

// While one exists, the first SIGINT or SIGTERM calls `on_signal` once, on a thread of its own; the
// next one ends the process as usual. One at a time in a process.
class InterruptScope {
 public:
  explicit InterruptScope(std::function<void()> on_signal);
  ~InterruptScope();
  InterruptScope(const InterruptScope&) = delete;
  InterruptScope& operator=(const InterruptScope&) = delete;

  // A signal has come.
  bool interrupted() const;

 private:
  class Watcher;
  Watcher* const watcher_;
};

}  // namespace penstock::client
