#include "server/engine/answer_measures.h"

namespace penstock {

void AnswerMeasures::Add(const std::vector<ScoredToken>& tokens, absl::Duration time) {
  if (tokens.empty()) return;
  if (last_ != -absl::InfiniteDuration()) {
    gaps_.push_back(static_cast<float>(absl::ToDoubleSeconds(time - last_)));
  }
  last_ = time;
  for (const ScoredToken& token : tokens) {
    logprob_sum_ += token.token.logprob;
    tokens_.push_back(token.token.token);
    const std::size_t n = tokens_.size();
    if (n < 4) continue;
    const bool is_new =
        four_grams_.insert({tokens_[n - 4], tokens_[n - 3], tokens_[n - 2], tokens_[n - 1]}).second;
    repeated_ += is_new ? 0 : 1;
  }
}

void AnswerMeasures::AddTo(RequestOutcome* outcome) const {
  outcome->logprob_sum += logprob_sum_;
  outcome->logprob_count += static_cast<int>(tokens_.size());
  outcome->inter_token_gaps.insert(outcome->inter_token_gaps.end(), gaps_.begin(), gaps_.end());
  outcome->four_grams += static_cast<int>(four_grams_.size()) + repeated_;
  outcome->repeated_four_grams += repeated_;
}

}  // namespace penstock
