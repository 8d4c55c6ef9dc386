// A model without weights: the next token is a hash of all tokens before it and of the router.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "server/model/model.h"

namespace penstock {

// What FakeModel samples after `tokens` under the router with this fingerprint: in [first_token,
// first_token + tokens_span).
TokenId FakeNextToken(const std::vector<TokenId>& tokens, const std::string& fingerprint,
                      TokenId first_token, int tokens_span);

class FakeModel final : public Model {
 public:
  struct Options {
    int max_in_flight = 1;
    int vocab_size = 260;
    TokenId first_token = 'a';  // sampled tokens lie in [first_token, first_token + tokens_span)
    int tokens_span = 26;
    int block_tokens = 4;
    std::int64_t num_blocks = 256;
    int max_context = 256;
    bool shadow_routing = false;
    absl::Duration shadow_time;               // of a step whose plan has shadows
    std::function<void()> on_step = nullptr;  // while a step runs
  };

  FakeModel() : FakeModel(Options{}) {}
  explicit FakeModel(Options options);

  const ModelSpec& spec() const override { return spec_; }
  int max_in_flight() const override { return options_.max_in_flight; }
  void Submit(const StepPlan& plan) override;
  absl::StatusOr<StepResult> Await() override;

  // Thread-safe, for tests: what the next steps do.
  void FailNextStep(absl::Status status);
  void FailSequence(SequenceId id, absl::Status status);
  void ScriptTokens(SequenceId id, std::vector<TokenId> tokens);  // sampled instead, in order
  // While held, Await blocks; each Release lets one step through.
  void Hold();
  void Release(int steps = 1);
  void Unhold();
  int steps() const;

 private:
  SequenceResult Run(const PlannedSequence& planned, const StepPlan& plan);

  const Options options_;
  ModelSpec spec_;
  std::deque<const StepPlan*> submitted_;

  mutable std::mutex mutex_;
  std::condition_variable released_;
  bool held_ = false;
  int releases_ = 0;
  int steps_ = 0;
  absl::Status next_step_;
  std::map<SequenceId, absl::Status> failures_;
  std::map<SequenceId, std::deque<TokenId>> scripts_;
  std::map<SequenceId, std::vector<TokenId>> histories_;  // tokens by position
};

}  // namespace penstock
