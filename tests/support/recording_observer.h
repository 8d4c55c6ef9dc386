// Keeps what a request's caller hears, and lets a test wait for its end.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "server/engine/request.h"

namespace penstock {

class RecordingObserver final : public ResponseObserver {
 public:
  struct Choice {
    std::string text;
    std::vector<TokenId> tokens;
    std::optional<FinishReason> finish;
    std::string stop_string;
    std::optional<TokenId> stop_token;
  };

  // False from OnDelta once this many deltas were taken.
  explicit RecordingObserver(int room = 1 << 30) : room_(room) {}

  void OnAdmitted(const Admission& admission) override {
    std::lock_guard<std::mutex> lock(mutex_);
    admission_ = admission;
    changed_.notify_all();
  }

  bool OnDelta(Delta delta) override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (room_-- <= 0) return false;
    for (ChoiceDelta& part : delta.choices) {
      Choice& choice = choices_[part.index];
      choice.text += part.text;
      for (const ScoredToken& token : part.tokens) choice.tokens.push_back(token.token.token);
      if (part.finish) choice.finish = part.finish;
      if (!part.stop_string.empty()) choice.stop_string = part.stop_string;
      if (part.stop_token) choice.stop_token = part.stop_token;
    }
    for (ScoredToken& score : delta.prompt_scores) prompt_scores_.push_back(std::move(score));
    changed_.notify_all();
    return true;
  }

  void OnFinished(const absl::Status& status, const Summary& summary) override {
    std::lock_guard<std::mutex> lock(mutex_);
    status_ = status;
    summary_ = summary;
    ++endings_;
    changed_.notify_all();
  }

  // The status that the caller got.
  absl::Status Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return status_.has_value(); });
    return *status_;
  }
  void WaitForText() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return !choices_.empty() || status_.has_value(); });
  }

  Admission admission() const { return Copy(admission_); }
  Choice choice(int index) const {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = choices_.find(index);
    return found == choices_.end() ? Choice{} : found->second;
  }
  std::vector<ScoredToken> prompt_scores() const { return Copy(prompt_scores_); }
  Summary summary() const { return Copy(summary_); }
  int endings() const { return Copy(endings_); }

 private:
  template <typename T>
  T Copy(const T& kept) const {
    std::lock_guard<std::mutex> lock(mutex_);
    return kept;
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int room_;
  Admission admission_;
  std::map<int, Choice> choices_;
  std::vector<ScoredToken> prompt_scores_;
  std::optional<absl::Status> status_;
  Summary summary_;
  int endings_ = 0;
};

}  // namespace penstock
