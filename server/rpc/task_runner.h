// Threads for what must not hold up gRPC's own: long prompts, router packages, timers.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/time/time.h"

namespace penstock {

// Thread-safe. Tasks start in order of their due times, equal ones in order of arrival. An
// exception that leaves a task is logged.
class TaskRunner {
 public:
  explicit TaskRunner(int threads);
  // Waits for the tasks that run; those that have not started never will.
  ~TaskRunner();

  void Run(std::function<void()> task);
  void RunAfter(absl::Duration delay, std::function<void()> task);

 private:
  using TimePoint = std::chrono::steady_clock::time_point;

  void Work();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::multimap<TimePoint, std::function<void()>> tasks_;  // by due time
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace penstock
