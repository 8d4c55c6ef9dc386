// A progress bar on a terminal; nothing elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace penstock {

// Draws on stderr, at most ten times a second, and only if stderr is a terminal. Ended by its
// destructor.
class ProgressBar {
 public:
  explicit ProgressBar(std::string label);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void Update(std::int64_t done_bytes, std::int64_t total_bytes);

 private:
  const std::string label_;
  const bool terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point last_;
};

}  // namespace penstock
