#include "clients/cpp/terminal/interrupts.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <utility>

namespace penstock::client {
namespace {

// What a signal handler may touch.
std::atomic<int> event_descriptor{-1};
std::atomic<bool> signalled{false};

void Add(int descriptor) {
  const std::uint64_t one = 1;
  // Writing 1 to an event counter fails only when it is full, and then its reader wakes anyhow.
  [[maybe_unused]] const ssize_t written = write(descriptor, &one, sizeof(one));
}

extern "C" void OnSignal(int /*number*/) {
  signalled.store(true);
  const int descriptor = event_descriptor.load();
  if (descriptor >= 0) Add(descriptor);
}

}  // namespace

class InterruptScope::Watcher {
 public:
  explicit Watcher(std::function<void()> on_signal)
      : on_signal_(std::move(on_signal)), descriptor_(eventfd(0, EFD_CLOEXEC)) {
    if (descriptor_ < 0) {
      std::perror("eventfd");
      std::abort();
    }
    signalled.store(false);
    event_descriptor.store(descriptor_);
    struct sigaction action {};
    action.sa_handler = OnSignal;
    // RESETHAND: a second signal has its usual effect.
    action.sa_flags = SA_RESTART | static_cast<int>(SA_RESETHAND);
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, &previous_interrupt_);
    sigaction(SIGTERM, &action, &previous_terminate_);
    thread_ = std::thread([this] { Watch(); });
  }

  ~Watcher() {
    sigaction(SIGINT, &previous_interrupt_, nullptr);
    sigaction(SIGTERM, &previous_terminate_, nullptr);
    event_descriptor.store(-1);
    Add(descriptor_);
    thread_.join();
    close(descriptor_);
  }

 private:
  void Watch() {
    std::uint64_t count = 0;
    if (read(descriptor_, &count, sizeof(count)) != sizeof(count)) return;
    if (signalled.load()) on_signal_();
  }

  const std::function<void()> on_signal_;
  const int descriptor_;
  struct sigaction previous_interrupt_ {};
  struct sigaction previous_terminate_ {};
  std::thread thread_;
};

InterruptScope::InterruptScope(std::function<void()> on_signal)
    : watcher_(new Watcher(std::move(on_signal))) {}

InterruptScope::~InterruptScope() { delete watcher_; }

bool InterruptScope::interrupted() const { return signalled.load(); }

}  // namespace penstock::client
