// Scheduler::PlanStep: which rows the next step computes.
#include <algorithm>
#include <utility>
#include <vector>

#include "server/base/check.h"
#include "server/scheduler/scheduler_state.h"

namespace penstock {
namespace {

// Weights of the virtual token counter, as Sheng et al. chose them: an output token takes a step of
// its own.
constexpr double kPromptTokenCharge = 1, kOutputTokenCharge = 2;

// Of the pool, left free by an admission beside running sequences: they grow, and preempting the
// newcomer at once would waste its prefill.
constexpr double kReservedShare = 0.01;

// Rows of background sequences that make a step of others little longer, however few those are;
// beyond it they get as many as the others have, at most Options::background_rows.
constexpr int kFewRows = 8;

// Weight of the newest value in the smoothed interval between admissions.
constexpr double kSmoothing = 0.1;

}  // namespace

std::optional<StepPlan> Scheduler::State::PlanStep(absl::Duration now) {
  Observe(now);
  EndPastDeadline();
  if (static_cast<int>(uncommitted_.size()) >= options_.max_uncommitted) return std::nullopt;
  StepPlan plan;
  plan.number = plans_ + 1;
  uncommitted_.push_back({.number = plan.number, .sequences = {}});
  PlanDecode(&plan);
  plan.decode_rows = plan.rows();
  PlanPrefill(&plan);
  PlanWaiting(&plan);
  PlanBackground(&plan);
  if (plan.sequences.empty()) {
    uncommitted_.pop_back();
    return std::nullopt;
  }
  PENSTOCK_CHECK_LE(plan.rows(), options_.token_budget);
  ++plans_;
  return plan;
}

void Scheduler::State::EndPastDeadline() {
  while (!deadlines_.empty() && deadlines_.begin()->first.first <= now_) {
    const std::shared_ptr<Sequence> sequence = live_.at(deadlines_.begin()->second);
    End(sequence, FinishReason::kDeadline, {});
  }
}

// In the order of victims reversed: whoever is preempted has no row in this plan yet.
void Scheduler::State::PlanDecode(StepPlan* plan) {
  for (auto next = running_.begin(); next != running_.end(); ++next) {
    Sequence* const sequence = *next;
    if (!sequence->decoding()) continue;
    while (!sequence->table.Grow(BlocksFor(sequence->planned + 1))) {
      Sequence* const victim = *running_.rbegin();
      // Its own and all free blocks hold it to its end: Validate saw to that.
      PENSTOCK_CHECK(victim != sequence || running_.size() > 1) << "a sequence alone does not fit";
      Preempt(victim);
      if (victim == sequence) return;  // it was the last
    }
    PlanRows(sequence, 1, plan);
  }
}

// Running sequences have blocks for all tokens that they were admitted with: prefill never
// preempts.
void Scheduler::State::PlanPrefill(StepPlan* plan) {
  for (Sequence* const sequence : running_) {
    const int budget = options_.token_budget - plan->rows();
    if (budget == 0) return;
    // Those that decode have their row, and may be about to have another.
    if (sequence->rows_left() == 0 || sequence->decoding()) continue;
    if (sequence->spec->background) continue;
    PlanRows(sequence, std::min({budget, options_.prefill_chunk, sequence->rows_left()}), plan);
  }
}

void Scheduler::State::PlanWaiting(StepPlan* plan) {
  while (plan->rows() < options_.token_budget) {
    Sequence* const sequence = waiting_.Next(now_);
    if (sequence == nullptr || sequence->spec->background) return;
    if (static_cast<int>(running_.size()) >= options_.max_batch && !PreemptBackground()) return;
    while (!Admit(sequence)) {
      if (!PreemptBackground()) return;
    }
    const int budget = options_.token_budget - plan->rows();
    PlanRows(sequence, std::min({budget, options_.prefill_chunk, sequence->rows_left()}), plan);
  }
}

// After all others have their rows, so that none is taken from them, and only where none waits.
void Scheduler::State::PlanBackground(StepPlan* plan) {
  int rows = std::min(options_.background_rows, std::max(plan->rows(), kFewRows));
  if (plan->sequences.empty()) {
    rows = std::min(options_.background_rows * Options::kBackgroundAlone, options_.prefill_chunk);
  }
  rows = std::min(rows, options_.token_budget - plan->rows());
  const auto has_room = [&] {
    return rows > 0 && static_cast<int>(plan->sequences.size()) < options_.max_batch;
  };
  const auto plan_rows = [&](Sequence* sequence) {
    const int count = std::min({rows, options_.prefill_chunk, sequence->rows_left()});
    PlanRows(sequence, count, plan);
    rows -= count;
  };
  for (auto next = running_.rbegin(); next != running_.rend() && has_room(); ++next) {
    if (!(*next)->spec->background) break;  // they are the last in this order
    if ((*next)->rows_left() > 0) plan_rows(*next);
  }
  while (has_room() && static_cast<int>(running_.size()) < options_.max_batch) {
    Sequence* const sequence = waiting_.Next(now_);
    if (sequence == nullptr || !sequence->spec->background || !Admit(sequence)) return;
    plan_rows(sequence);
  }
}

bool Scheduler::State::PreemptBackground() {
  if (background_running_ == 0) return false;
  Preempt(*running_.rbegin());
  return true;
}

bool Scheduler::State::Admit(Sequence* sequence) {
  // A preempted one whose results are still to come would compute them again.
  if (sequence->in_flight > 0) return false;
  const int length = sequence->length();
  if (options_.prefix_cache && sequence->reads_cache()) {
    // The last token's row must be computed, for its logits.
    const int blocks = (length - 1) / options_.block_tokens;
    sequence->ExtendKeys(blocks, options_.block_tokens, options_.share_cache_across_tenants,
                         &hasher_);
    sequence->table.Adopt(index_.Match(absl::MakeConstSpan(sequence->keys).first(blocks)));
  }
  const int found = sequence->table.size();
  const int reserve = running_.empty() ? 0 : static_cast<int>(kReservedShare * pool_.size());
  const int wanted = BlocksFor(length);
  if (wanted - found + reserve > pool_.available() || !sequence->table.Grow(wanted)) {
    sequence->table.Release();
    return false;
  }
  sequence->running_priority = waiting_.EffectivePriority(*sequence, now_);
  sequence->waited = now_ - sequence->aged_from;
  waiting_.Remove(sequence);
  sequence->place = Sequence::Place::kRunning;
  running_.insert(sequence);
  background_waiting_ -= sequence->spec->background;
  background_running_ += sequence->spec->background;
  ++sequence->residence;
  sequence->indexed_blocks = found;
  sequence->planned = sequence->committed = found * options_.block_tokens;
  sequence->first_new_position = std::max(sequence->first_new_position, sequence->planned);
  if (sequence->stats.admitted != absl::InfiniteDuration()) return true;
  sequence->stats.admitted = now_;
  sequence->stats.cached_prompt_tokens = sequence->planned;
  shares_.Charge(sequence->tenant, kPromptTokenCharge * (length - sequence->planned));
  if (last_admission_ != absl::InfiniteDuration()) {
    admission_interval_ =
        (1 - kSmoothing) * admission_interval_ + kSmoothing * (now_ - last_admission_);
  }
  last_admission_ = now_;
  return true;
}

void Scheduler::State::PlanRows(Sequence* sequence, int rows, StepPlan* plan) {
  PENSTOCK_CHECK_GT(rows, 0) << "sequence " << sequence->spec->id;
  const int end = sequence->planned + rows;
  const std::vector<BlockId>& blocks = sequence->table.blocks();
  PlannedSequence planned;
  planned.id = sequence->spec->id;
  planned.spec = sequence->spec;
  planned.first_row = plan->rows();
  planned.num_rows = rows;
  planned.first_position = sequence->planned;
  planned.first_new_position = sequence->spec->background ? end : sequence->first_new_position;
  planned.samples = end == sequence->length() && sequence->spec->stopping.max_new_tokens > 0;
  planned.num_output = sequence->num_output();
  planned.block_table.assign(blocks.begin(), blocks.begin() + BlocksFor(end));
  planned.output = &sequence->output;
  for (int position = sequence->planned; position < end; ++position) {
    plan->token_ids.push_back(sequence->token(position));
    plan->positions.push_back(position);
  }
  uncommitted_.back().sequences.push_back({.sequence = live_.at(planned.id),
                                           .residence = sequence->residence,
                                           .first_position = planned.first_position,
                                           .num_rows = rows,
                                           .first_new_position = sequence->first_new_position,
                                           .samples = planned.samples});
  (sequence->spec->background ? background_rows_ : traffic_rows_) += rows;
  ++sequence->in_flight;
  sequence->planned = end;
  sequence->first_new_position = std::max(sequence->first_new_position, end);
  if (planned.samples) {
    ++sequence->pending;
    shares_.Charge(sequence->tenant, kOutputTokenCharge);
  }
  plan->sequences.push_back(std::move(planned));
}

void Scheduler::State::Preempt(Sequence* sequence) {
  running_.erase(sequence);
  sequence->table.Release();
  sequence->planned = sequence->committed = sequence->indexed_blocks = 0;
  ++sequence->residence;
  ++sequence->stats.preemptions;
  if (sequence->spec->background) {
    --background_running_;
    ++background_waiting_;
  } else {
    ++preemptions_;
  }
  sequence->place = Sequence::Place::kWaiting;
  waiting_.PushFront(sequence, now_);
}

}  // namespace penstock
