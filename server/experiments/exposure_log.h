// Who was exposed to what, one JSON line a request, for analyses elsewhere. No text.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "server/experiments/request_outcome.h"

namespace penstock {

// Appends on a thread of its own, so that a slow disk holds up nobody: lines beyond kMaxWaiting are
// dropped, and how many is logged with the next that is written. Thread-safe.
class ExposureLog {
 public:
  static constexpr std::size_t kMaxWaiting = 65'536;

  // INVALID_ARGUMENT naming the path where it cannot be appended to.
  static absl::StatusOr<std::unique_ptr<ExposureLog>> Open(const std::string& path);
  ~ExposureLog();  // writes what waits

  void Write(const RequestOutcome& outcome);
  // The file was moved away (logrotate): the lines that follow go to a new one.
  void Reopen();

  // {"time", "request_id", "unit_hash", "experiment", "revision", "period", "arm", "reason",
  // "measures": {…}}; numbers that there are none of are left out.
  static std::string LineOf(const RequestOutcome& outcome);

 private:
  ExposureLog(std::string path, std::FILE* file);
  void Append();

  const std::string path_;
  std::FILE* file_;  // the writing thread's

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<std::string> waiting_;
  std::int64_t dropped_ = 0;
  bool reopen_ = false, stopped_ = false;
  std::thread writer_;
};

}  // namespace penstock
