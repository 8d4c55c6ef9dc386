// Scheduler::CommitStep: what came of a step.
#include <algorithm>
#include <utility>

#include "server/base/check.h"
#include "server/scheduler/scheduler_state.h"

namespace penstock {

void Scheduler::State::CommitStep(const StepPlan& plan, const StepResult& result,
                                  absl::Duration now) {
  Observe(now);
  PENSTOCK_CHECK(!uncommitted_.empty()) << "step " << plan.number << " was not planned";
  const Uncommitted step = std::move(uncommitted_.front());
  uncommitted_.pop_front();
  PENSTOCK_CHECK_EQ(plan.number, step.number) << "steps are committed in the order of their plans";
  PENSTOCK_CHECK_EQ(result.sequences.size(), step.sequences.size()) << "step " << plan.number;
  for (std::size_t i = 0; i < step.sequences.size(); ++i) {
    --step.sequences[i].sequence->in_flight;
    if (step.sequences[i].sequence->place == Sequence::Place::kEnded) continue;
    CommitSequence(step.sequences[i], result.sequences[i]);
  }
}

void Scheduler::State::CommitSequence(const Planned& planned, const SequenceResult& result) {
  const std::shared_ptr<Sequence>& sequence = planned.sequence;
  const SequenceSpec& spec = *sequence->spec;
  SequenceEvent event;
  event.id = spec.id;
  if (!result.status.ok()) {
    event.error = result.status;
    End(sequence, FinishReason::kError, std::move(event));
    return;
  }
  const int end = planned.first_position + planned.num_rows;
  if (spec.output.prompt_logprobs) {
    const int scored =
        std::max(0, std::min(end, sequence->prompt_length() - 1) - planned.first_position);
    PENSTOCK_CHECK_EQ(static_cast<int>(result.prompt_scores.size()), scored)
        << "sequence " << spec.id;
    const int old = std::clamp(planned.first_new_position - planned.first_position, 0, scored);
    event.prompt_scores.assign(result.prompt_scores.begin() + old, result.prompt_scores.end());
  }
  std::copy_if(result.traces.begin(), result.traces.end(), std::back_inserter(event.traces),
               [&](const RowTrace& trace) { return trace.position >= planned.first_new_position; });

  std::optional<FinishReason> finish;
  if (planned.samples) {
    PENSTOCK_CHECK(result.sampled.has_value()) << "sequence " << spec.id << " has no sampled token";
    const TokenId token = result.sampled->token.token;
    const std::vector<TokenId>& stops = spec.stopping.stop_token_ids;
    --sequence->pending;
    if (sequence->output.empty() && sequence->stats.first_token == absl::InfiniteDuration()) {
      sequence->stats.first_token = now_;
    }
    if (std::find(stops.begin(), stops.end(), token) != stops.end()) {
      finish = FinishReason::kStop;
      event.stop_token = token;
    } else {
      sequence->output.push_back(token);
      event.tokens.push_back(*result.sampled);
      if (static_cast<int>(sequence->output.size()) == spec.stopping.max_new_tokens) {
        finish = FinishReason::kLength;
      }
    }
  } else if (spec.stopping.max_new_tokens == 0 && end == sequence->prompt_length()) {
    finish = FinishReason::kLength;
  }

  // Rows from before a preemption are no longer in the sequence's blocks.
  if (planned.residence == sequence->residence) {
    sequence->committed = end;
    OfferToCache(sequence.get());
  }
  if (finish) {
    End(sequence, *finish, std::move(event));
  } else if (!event.tokens.empty() || !event.prompt_scores.empty() || !event.traces.empty()) {
    sequence->stats.output_tokens = static_cast<int>(sequence->output.size());
    event.stats = sequence->stats;
    events_.push_back(std::move(event));
  }
}

void Scheduler::State::OfferToCache(Sequence* sequence) {
  if (!options_.prefix_cache || !sequence->adds_to_cache()) return;
  const int full = sequence->committed / options_.block_tokens;
  if (full <= sequence->indexed_blocks) return;
  sequence->ExtendKeys(full, options_.block_tokens, options_.share_cache_across_tenants, &hasher_);
  for (int& block = sequence->indexed_blocks; block < full; ++block) {
    index_.Add(sequence->keys[block], sequence->table.blocks()[block]);
  }
}

}  // namespace penstock
