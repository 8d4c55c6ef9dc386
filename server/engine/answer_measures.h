// What one answer says about the router that it ran under.
#pragma once

#include <array>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"
#include "server/experiments/request_outcome.h"
#include "server/scheduler/sequence.h"

namespace penstock {

// Of one choice. A run of four tokens costs one look-up.
class AnswerMeasures {
 public:
  // Emitted tokens, in order. `time`: SequenceEvent::time of the event that brought them.
  void Add(const std::vector<ScoredToken>& tokens, absl::Duration time);

  // Adds log-probabilities, gaps and four-grams.
  void AddTo(RequestOutcome* outcome) const;

  const std::vector<TokenId>& tokens() const { return tokens_; }

 private:
  std::vector<TokenId> tokens_;
  std::vector<float> gaps_;                          // seconds
  absl::Duration last_ = -absl::InfiniteDuration();  // none yet
  double logprob_sum_ = 0;
  absl::flat_hash_set<std::array<TokenId, 4>> four_grams_;
  int repeated_ = 0;
};

}  // namespace penstock
