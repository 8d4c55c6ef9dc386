#include "server/experiments/exposure_log.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "server/base/error.h"
#include "server/base/log.h"
#include "server/experiments/statistics/hyper_log_log.h"

namespace penstock {

absl::StatusOr<std::unique_ptr<ExposureLog>> ExposureLog::Open(const std::string& path) {
  std::FILE* const file = std::fopen(path.c_str(), "a");
  if (file == nullptr) {
    return InvalidField("experiments.exposure_log", path,
                        absl::StrCat("a file that can be appended to: ", std::strerror(errno)));
  }
  return std::unique_ptr<ExposureLog>(new ExposureLog(path, file));
}

ExposureLog::ExposureLog(std::string path, std::FILE* file)
    : path_(std::move(path)), file_(file), writer_([this] { Append(); }) {}

ExposureLog::~ExposureLog() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopped_ = true;
  }
  arrived_.notify_one();
  writer_.join();
  if (file_ != nullptr) std::fclose(file_);
}

std::string ExposureLog::LineOf(const RequestOutcome& outcome) {
  const RouterChoice& choice = outcome.request.choice;
  nlohmann::ordered_json measures = {{"code", absl::StatusCodeToString(outcome.code)},
                                     {"prompt_tokens", outcome.prompt_tokens},
                                     {"completion_tokens", outcome.completion_tokens},
                                     {"total_seconds", absl::ToDoubleSeconds(outcome.total)}};
  if (outcome.answered) {
    measures["first_token_seconds"] = absl::ToDoubleSeconds(outcome.time_to_first_token);
  }
  if (!outcome.inter_token_gaps.empty()) {
    double sum = 0;
    for (const float gap : outcome.inter_token_gaps) sum += gap;
    measures["gaps"] = outcome.inter_token_gaps.size();
    measures["gap_seconds"] = sum;
  }
  if (outcome.logprob_count > 0) {
    measures["logprob_sum"] = outcome.logprob_sum;
    measures["logprob_count"] = outcome.logprob_count;
  }
  if (outcome.four_grams > 0) {
    measures["four_grams"] = outcome.four_grams;
    measures["repeated_four_grams"] = outcome.repeated_four_grams;
  }
  const nlohmann::ordered_json line = {
      {"time", absl::FormatTime(absl::RFC3339_full, outcome.request.time, absl::UTCTimeZone())},
      {"request_id", outcome.request.request_id},
      {"unit_hash", absl::StrCat(absl::Hex(UnitHash(choice.unit), absl::kZeroPad16))},
      {"experiment", choice.experiment},
      {"revision", choice.revision},
      {"period", choice.period},
      {"arm", choice.arm},
      {"reason", choice.reason},
      {"measures", measures}};
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void ExposureLog::Write(const RequestOutcome& outcome) {
  std::string line = LineOf(outcome);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (waiting_.size() >= kMaxWaiting) {
      ++dropped_;
      return;
    }
    waiting_.push_back(std::move(line));
  }
  arrived_.notify_one();
}

void ExposureLog::Reopen() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    reopen_ = true;
  }
  arrived_.notify_one();
}

void ExposureLog::Append() {
  while (true) {
    std::deque<std::string> lines;
    std::int64_t dropped = 0;
    bool reopen = false, stopped = false;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      arrived_.wait(lock, [this] { return stopped_ || reopen_ || !waiting_.empty(); });
      lines.swap(waiting_);
      dropped = std::exchange(dropped_, 0);
      reopen = std::exchange(reopen_, false);
      stopped = stopped_;
    }
    bool written = file_ != nullptr;
    for (const std::string& line : lines) {
      written = written && std::fputs(line.c_str(), file_) >= 0 && std::fputc('\n', file_) >= 0;
    }
    written = written && std::fflush(file_) == 0;
    if (!written && !lines.empty()) dropped += static_cast<std::int64_t>(lines.size());
    if (dropped > 0) {
      Log(LogLevel::kError, "exposures not written", {{"file", path_}, {"lines", dropped}});
    }
    if (reopen || !written) {
      if (file_ != nullptr) std::fclose(file_);
      file_ = std::fopen(path_.c_str(), "a");
    }
    if (stopped) return;
  }
}

}  // namespace penstock
