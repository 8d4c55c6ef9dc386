// How far a command is, in one line on stderr that redraws itself.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "clients/cpp/terminal/terminal.h"

namespace penstock::client {

// Draws where stderr is a terminal, and nothing anywhere else. Not thread-safe.
class ProgressLine {
 public:
  // `unit`: what is counted, "documents".
  ProgressLine(Terminal& terminal, std::string unit, long long total);
  ~ProgressLine();  // takes the line away
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void Update(long long done);

 private:
  Terminal& terminal_;
  const std::string unit_;
  const long long total_;
  const absl::Time start_;
  absl::Time drawn_ = absl::InfinitePast();
};

}  // namespace penstock::client
