#include "tests/support/fake_model.h"

#include <utility>

#include "server/base/check.h"

namespace penstock {

TokenId FakeNextToken(const std::vector<TokenId>& tokens, const std::string& fingerprint,
                      TokenId first_token, int tokens_span) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  const auto mix = [&hash](std::uint64_t value) { hash = (hash ^ value) * 0x100000001b3; };
  for (const char c : fingerprint) mix(static_cast<unsigned char>(c));
  for (const TokenId token : tokens) mix(static_cast<std::uint64_t>(token) + 1);
  return first_token + static_cast<TokenId>((hash >> 20) % tokens_span);
}

FakeModel::FakeModel(Options options) : options_(std::move(options)) {
  spec_.name = "fake";
  spec_.backend = "fake";
  spec_.dtype = "float32";
  spec_.num_layers = 2;
  spec_.sparse_layers = {0, 1};
  spec_.num_experts = 4;
  spec_.top_k = 2;
  spec_.hidden_size = 8;
  spec_.vocab_size = options.vocab_size;
  spec_.max_context = options.max_context;
  spec_.block_tokens = options.block_tokens;
  spec_.num_blocks = options.num_blocks;
  spec_.shadow_routing = options.shadow_routing;
}

void FakeModel::Submit(const StepPlan& plan) { submitted_.push_back(&plan); }

absl::StatusOr<StepResult> FakeModel::Await() {
  std::unique_lock<std::mutex> lock(mutex_);
  released_.wait(lock, [this] { return !held_ || releases_ > 0; });
  if (held_) --releases_;
  ++steps_;
  PENSTOCK_CHECK(!submitted_.empty()) << "Await without Submit";
  const StepPlan& plan = *submitted_.front();
  submitted_.pop_front();
  if (options_.on_step != nullptr) options_.on_step();
  if (!next_step_.ok()) return std::exchange(next_step_, absl::OkStatus());

  StepResult result;
  result.expert_passes = static_cast<int>(spec_.sparse_layers.size());
  std::map<std::string, std::int64_t> rows;  // by router, recomputed ones left out
  for (const PlannedSequence& planned : plan.sequences) {
    result.sequences.push_back(Run(planned, plan));
    const int last = planned.first_position + planned.num_rows;
    if (planned.spec->router != nullptr) {
      rows[planned.spec->router->name] +=
          std::max(0, last - std::max(planned.first_position, planned.first_new_position));
    }
  }
  for (const auto& [router, count] : rows) {
    result.routers.push_back(
        {.router = router, .rows = count, .router_time = absl::Microseconds(1)});
    for (const int layer : spec_.sparse_layers) {
      RoutingCounts counts{
          .router = router, .layer = layer, .rows = count, .slots = {count, count, 0, 0}};
      result.routing.push_back(std::move(counts));
    }
  }
  if (plan.shadows.empty()) return result;
  result.shadow_time = options_.shadow_time;
  for (const auto& [router, count] : rows) {
    for (const auto& shadow : plan.shadows) {
      if (shadow->name == router) continue;
      for (const int layer : spec_.sparse_layers) {
        result.shadows.push_back({.router = router,
                                  .shadow = shadow->name,
                                  .layer = layer,
                                  .rows = count,
                                  .overlap = count,
                                  .slots = {count, 0, count, 0}});
      }
    }
  }
  return result;
}

SequenceResult FakeModel::Run(const PlannedSequence& planned, const StepPlan& plan) {
  SequenceResult result;
  std::vector<TokenId>& history = histories_[planned.id];
  const SequenceSpec& spec = *planned.spec;
  if (history.empty()) history = spec.prompt;  // what the prefix cache holds is in no plan
  for (int row = 0; row < planned.num_rows; ++row) {
    const int position = planned.first_position + row;
    const TokenId token = plan.token_ids[planned.first_row + row];
    if (static_cast<int>(history.size()) <= position) history.resize(position + 1);
    if (token != kTokenOfPreviousStep) history[position] = token;
    if (spec.output.prompt_logprobs && position + 1 < static_cast<int>(spec.prompt.size())) {
      result.prompt_scores.push_back(
          {.token = {.token = spec.prompt[position + 1], .logprob = -1}, .top = {}});
    }
  }
  if (const auto failure = failures_.find(planned.id); failure != failures_.end()) {
    result.status = failure->second;
    failures_.erase(failure);
    return result;
  }
  if (!planned.samples) return result;
  history.resize(planned.first_position + planned.num_rows);
  TokenId next = FakeNextToken(history, spec.router == nullptr ? "" : spec.router->fingerprint,
                               options_.first_token, options_.tokens_span);
  if (const auto script = scripts_.find(planned.id);
      script != scripts_.end() && !script->second.empty()) {
    next = script->second.front();
    script->second.pop_front();
  }
  history.push_back(next);
  result.sampled = ScoredToken{.token = {.token = next, .logprob = -0.5f}, .top = {}};
  return result;
}

void FakeModel::FailNextStep(absl::Status status) {
  std::lock_guard<std::mutex> lock(mutex_);
  next_step_ = std::move(status);
}

void FakeModel::FailSequence(SequenceId id, absl::Status status) {
  std::lock_guard<std::mutex> lock(mutex_);
  failures_[id] = std::move(status);
}

void FakeModel::ScriptTokens(SequenceId id, std::vector<TokenId> tokens) {
  std::lock_guard<std::mutex> lock(mutex_);
  scripts_[id] = std::deque<TokenId>(tokens.begin(), tokens.end());
}

void FakeModel::Hold() {
  std::lock_guard<std::mutex> lock(mutex_);
  held_ = true;
}

void FakeModel::Release(int steps) {
  std::lock_guard<std::mutex> lock(mutex_);
  releases_ += steps;
  released_.notify_all();
}

void FakeModel::Unhold() {
  std::lock_guard<std::mutex> lock(mutex_);
  held_ = false;
  releases_ = 0;
  released_.notify_all();
}

int FakeModel::steps() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return steps_;
}

}  // namespace penstock
