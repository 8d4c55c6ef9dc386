#include "server/rpc/task_runner.h"

#include <condition_variable>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/base/log.h"
#include "server/rpc/call_tracker.h"

namespace penstock {
namespace {

// Opens once.
class Gate {
 public:
  void Open() {
    std::lock_guard<std::mutex> lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return open_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
};

TEST(TaskRunnerTest, RunsTasksInOrderOfTheirDueTimes) {
  std::vector<int> order;  // of the one worker
  Gate started, go, done;
  TaskRunner runner(1);
  runner.Run([&] {
    started.Open();
    go.Wait();
  });
  started.Wait();
  runner.RunAfter(absl::Milliseconds(30), [&] {
    order.push_back(3);
    done.Open();
  });
  runner.RunAfter(absl::Milliseconds(20), [&] { order.push_back(2); });
  runner.Run([&] { order.push_back(0); });
  runner.Run([&] { order.push_back(1); });
  go.Open();
  done.Wait();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3}));
}

TEST(TaskRunnerTest, DropsWhatHasNotStartedAtItsEnd) {
  auto held = std::make_shared<int>();
  {
    TaskRunner runner(2);
    runner.RunAfter(absl::Hours(1), [held] { ADD_FAILURE(); });
    EXPECT_EQ(held.use_count(), 2);
  }
  EXPECT_EQ(held.use_count(), 1);
}

TEST(TaskRunnerTest, SurvivesAndLogsExceptions) {
  std::string logged;
  SetLogSink([&](std::string_view line) { logged = std::string(line); });
  {
    Gate done;
    TaskRunner runner(1);
    runner.Run([] { throw std::runtime_error("boom"); });
    runner.Run([&] { done.Open(); });
    done.Wait();
  }
  SetLogSink({});
  EXPECT_NE(logged.find("boom"), std::string::npos) << logged;
}

TEST(CallTrackerTest, WaitsUntilNoCallIsLeft) {
  CallTracker tracker;
  EXPECT_TRUE(tracker.WaitUntilNone(absl::ZeroDuration()));
  CallTracker::Call first = tracker.Begin();
  CallTracker::Call second = tracker.Begin();
  EXPECT_FALSE(tracker.WaitUntilNone(absl::ZeroDuration()));
  first.reset();
  EXPECT_FALSE(tracker.WaitUntilNone(absl::Milliseconds(1)));
  TaskRunner runner(1);
  runner.Run([&] { second.reset(); });
  EXPECT_TRUE(tracker.WaitUntilNone(absl::InfiniteDuration()));
}

}  // namespace
}  // namespace penstock
