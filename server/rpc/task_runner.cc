#include "server/rpc/task_runner.h"

#include <exception>
#include <utility>

#include "server/base/log.h"

namespace penstock {

TaskRunner::TaskRunner(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
}

TaskRunner::~TaskRunner() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void TaskRunner::Run(std::function<void()> task) {
  RunAfter(absl::ZeroDuration(), std::move(task));
}

void TaskRunner::RunAfter(absl::Duration delay, std::function<void()> task) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    tasks_.emplace(std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(delay),
                   std::move(task));
  }
  changed_.notify_one();
}

void TaskRunner::Work() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!stopping_) {
    if (tasks_.empty()) {
      changed_.wait(lock);
      continue;
    }
    const auto first = tasks_.begin();
    if (const TimePoint due = first->first; due > std::chrono::steady_clock::now()) {
      changed_.wait_until(lock, due);
      continue;
    }
    const std::function<void()> task = std::move(first->second);
    tasks_.erase(first);
    lock.unlock();
    try {
      task();
    } catch (const std::exception& error) {
      Log(LogLevel::kError, "a task failed", {{"error", std::string(error.what())}});
    }
    lock.lock();
  }
}

}  // namespace penstock
