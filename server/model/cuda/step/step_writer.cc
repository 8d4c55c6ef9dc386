#include "server/model/cuda/step/step_writer.h"

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/error.h"

namespace penstock {
namespace {

bool Penalizes(const SamplingParams& sampling) {
  return sampling.repetition_penalty != 1 || sampling.presence_penalty != 0 ||
         sampling.frequency_penalty != 0;
}

}  // namespace

StepWriter::StepWriter(StepWriterOptions options, RouterSlots* routers)
    : options_(options), routers_(routers) {
  for (int slot = options_.max_sequences; slot-- > 0;) free_histories_.push_back(slot);
}

std::vector<LogitRow> StepWriter::LogitRows(const StepPlan& plan) const {
  std::vector<LogitRow> rows;
  for (std::size_t s = 0; s < plan.sequences.size(); ++s) {
    const PlannedSequence& planned = plan.sequences[s];
    if (planned.spec->output.prompt_logprobs.has_value()) {
      const int scored = static_cast<int>(planned.spec->prompt.size()) - 1;
      const int end = std::min(planned.first_position + planned.num_rows, scored);
      for (int position = planned.first_position; position < end; ++position) {
        const int place = position - planned.first_position;
        rows.push_back({s, planned.first_row + place, false, static_cast<std::size_t>(place)});
      }
    }
    if (planned.samples) rows.push_back({s, planned.first_row + planned.num_rows - 1, true, 0});
  }
  return rows;
}

WrittenStep StepWriter::Write(const StepPlan& plan, std::vector<LogitRow> logit_rows,
                              const StepTarget& target) {
  PENSTOCK_CHECK_LE(plan.sequences.size(), static_cast<std::size_t>(options_.max_sequences));
  WrittenStep step;
  step.status.resize(plan.sequences.size());
  step.logit_rows = std::move(logit_rows);
  std::int32_t* counts = target.inputs.counts;
  counts[StepInputs::kNumRows] = plan.rows();
  counts[StepInputs::kNumDecodeRows] = plan.decode_rows;
  const auto wanted = static_cast<std::int64_t>(step.logit_rows.size());
  for (std::int64_t chunk = 0; chunk * kLogitChunk < std::max<std::int64_t>(wanted, 1); ++chunk) {
    counts[StepInputs::kNumLogitRows + chunk] =
        static_cast<std::int32_t>(std::min(kLogitChunk, wanted - chunk * kLogitChunk));
  }
  WriteRows(plan, target, step);
  WriteSamples(plan, target, step);
  return step;
}

void StepWriter::WriteRows(const StepPlan& plan, const StepTarget& target, WrittenStep& step) {
  int width = 0;
  for (const PlannedSequence& planned : plan.sequences) {
    const int blocks = (planned.first_position + planned.num_rows + options_.block_tokens - 1) /
                       options_.block_tokens;
    PENSTOCK_CHECK_LE(static_cast<std::size_t>(blocks), planned.block_table.size());
    PENSTOCK_CHECK_LE(planned.first_position + planned.num_rows, options_.max_context);
    width = std::max(width, blocks);
  }
  target.inputs.counts[StepInputs::kNumSequences] =
      static_cast<std::int32_t>(plan.sequences.size());
  target.inputs.counts[StepInputs::kTableWidth] = width;
  step.table_entries = static_cast<std::int64_t>(plan.sequences.size()) * width;
  int row = 0;
  for (std::size_t s = 0; s < plan.sequences.size(); ++s) {
    const PlannedSequence& planned = plan.sequences[s];
    PENSTOCK_CHECK_EQ(planned.first_row, row);
    std::int32_t* table = target.inputs.block_tables + s * static_cast<std::size_t>(width);
    for (int i = 0; i < width; ++i) {
      // Blocks beyond the sequence's own are read by nobody.
      const int block =
          static_cast<std::size_t>(i) < planned.block_table.size() ? planned.block_table[i] : 0;
      PENSTOCK_CHECK(block >= 0 && block < options_.num_blocks) << "block " << block;
      table[i] = block;
    }
    const std::optional<int> slot = routers_->Hold(planned.spec->router, plan.number);
    if (!slot) {
      step.status[s] =
          MakeError(absl::StatusCode::kResourceExhausted,
                    absl::StrCat("router \"", planned.spec->router->name,
                                 "\": too many routers are in use on the GPU at once"),
                    {.reason = "ROUTERS_IN_USE", .field = {}, .retry_after = absl::Seconds(1)});
    }
    const int router = slot.value_or(0);
    const auto share =
        std::find_if(step.routers.begin(), step.routers.end(),
                     [&](const WrittenStep::RouterShare& known) { return known.slot == router; });
    WrittenStep::RouterShare& counted =
        share != step.routers.end() ? *share
                                    : step.routers.emplace_back(WrittenStep::RouterShare{
                                          .slot = router, .router = planned.spec->router->name});
    const OutputParams& output = planned.spec->output;
    step.wants_traces |= output.router_trace || output.prompt_trace;
    for (int i = 0; i < planned.num_rows; ++i, ++row) {
      const int position = planned.first_position + i;
      PENSTOCK_CHECK_EQ(plan.positions[static_cast<std::size_t>(row)], position);
      const TokenId token = plan.token_ids[static_cast<std::size_t>(row)];
      if (token == kTokenOfPreviousStep) {
        const auto found = sampled_.find(planned.id);
        PENSTOCK_CHECK(found != sampled_.end())
            << "sequence " << planned.id << " sampled nothing in the step before";
        target.inputs.tokens[row] = -1 - found->second;
      } else {
        PENSTOCK_CHECK(token >= 0 && token < options_.vocab_size) << "token " << token;
        target.inputs.tokens[row] = token;
      }
      target.inputs.positions[row] = position;
      target.inputs.sequences[row] = static_cast<std::int32_t>(s);
      target.inputs.row_routers[row] = router;
      const bool is_counted = slot.has_value() && position >= planned.first_new_position;
      target.inputs.counted[row] = is_counted;
      counted.counted_rows += is_counted;
    }
  }
  PENSTOCK_CHECK_EQ(row, plan.rows());
}

void StepWriter::WriteSamples(const StepPlan& plan, const StepTarget& target, WrittenStep& step) {
  sampled_.clear();
  int biases = 0, banned = 0;
  for (std::size_t i = 0; i < step.logit_rows.size(); ++i) {
    const LogitRow& wanted = step.logit_rows[i];
    const PlannedSequence& planned = plan.sequences[wanted.sequence];
    const SequenceSpec& spec = *planned.spec;
    const SamplingParams& sampling = spec.sampling;
    SampleRow row;
    target.inputs.logit_rows[i] = wanted.row;
    const std::optional<int>& top =
        wanted.samples ? spec.output.logprobs : spec.output.prompt_logprobs;
    row.num_top = std::min(top.value_or(0), std::min(options_.max_top, options_.vocab_size));
    step.wants_top |= row.num_top > 0;
    if (!wanted.samples) {
      row.given_token =
          spec.prompt[static_cast<std::size_t>(planned.first_position) + wanted.place + 1];
      target.inputs.samples[i] = row;
      continue;
    }
    sampled_[planned.id] = static_cast<std::int32_t>(i);
    row.temperature = static_cast<float>(sampling.temperature);
    row.top_k = sampling.top_k;
    row.top_p = sampling.top_p;
    row.min_p = sampling.min_p;
    row.seed = sampling.seed;
    row.choice = sampling.choice;
    row.position = static_cast<std::uint32_t>(planned.num_output);
    row.num_prompt = static_cast<std::int32_t>(spec.prompt.size());
    row.num_output = planned.num_output;
    if (Penalizes(sampling)) {
      row.repetition_penalty = static_cast<float>(sampling.repetition_penalty);
      row.frequency_penalty = static_cast<float>(sampling.frequency_penalty);
      row.presence_penalty = static_cast<float>(sampling.presence_penalty);
      row.history = HistoryOf(planned, plan.number, step);
    }
    // A token named twice gets the sum of its biases.
    std::map<TokenId, float> bias;
    for (const auto& [token, value] : sampling.logit_bias) bias[token] += value;
    const bool bans = planned.num_output < spec.stopping.min_new_tokens;
    const std::size_t num_banned = bans ? spec.stopping.stop_token_ids.size() : 0;
    if (biases + bias.size() > static_cast<std::size_t>(options_.max_token_lists) ||
        banned + num_banned > static_cast<std::size_t>(options_.max_token_lists)) {
      step.status[wanted.sequence] = absl::ResourceExhaustedError(
          absl::StrCat("a step holds ", options_.max_token_lists,
                       " entries of logit_bias and of stop tokens, and is full"));
      target.inputs.samples[i] = row;
      continue;
    }
    row.bias_first = biases;
    for (const auto& [token, value] : bias) {
      target.bias_tokens[biases] = token;
      target.biases[biases++] = value;
    }
    row.num_biases = biases - row.bias_first;
    row.banned_first = banned;
    for (std::size_t b = 0; b < num_banned; ++b)
      target.banned[banned++] = spec.stopping.stop_token_ids[b];
    row.num_banned = banned - row.banned_first;
    target.inputs.samples[i] = row;
  }
  step.list_entries = std::max(biases, banned);
  // Those whose sequence was not in this step: it waits, or has ended.
  absl::erase_if(histories_, [&](const auto& entry) {
    if (entry.second.last_step == plan.number) return false;
    free_histories_.push_back(entry.second.slot);
    return true;
  });
}

int StepWriter::HistoryOf(const PlannedSequence& planned, std::uint64_t number, WrittenStep& step) {
  const auto found = histories_.find(planned.id);
  if (found != histories_.end()) {
    found->second.last_step = number;
    return found->second.slot;
  }
  PENSTOCK_CHECK(!free_histories_.empty()) << "more histories than sequences";
  const int slot = free_histories_.back();
  free_histories_.pop_back();
  histories_[planned.id] = {slot, number};
  std::vector<std::int32_t> tokens(planned.spec->prompt.begin(), planned.spec->prompt.end());
  if (planned.output != nullptr)
    tokens.insert(tokens.end(), planned.output->begin(), planned.output->end());
  step.histories.emplace_back(slot, std::move(tokens));
  return slot;
}

}  // namespace penstock
