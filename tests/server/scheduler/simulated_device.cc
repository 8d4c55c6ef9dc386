#include "tests/server/scheduler/simulated_device.h"

#include <algorithm>
#include <set>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"

namespace penstock {
namespace {

// splitmix64's finalizer, over both values.
std::uint64_t Mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t x = a * 0x9e3779b97f4a7c15 + b + 0x632be59bd9b4e019;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

std::uint64_t HashText(const std::string& text) {
  std::uint64_t hash = text.size();
  for (const char c : text) hash = Mix(hash, static_cast<unsigned char>(c));
  return hash;
}

TokenId NextToken(std::uint64_t prefix, int vocabulary) {
  return static_cast<TokenId>(Mix(prefix, 1) % vocabulary);
}

}  // namespace

LoneAnswer RunAlone(const SequenceSpec& spec, int vocabulary) {
  LoneAnswer answer;
  std::uint64_t prefix = HashText(spec.router->fingerprint);
  for (const TokenId token : spec.prompt) prefix = Mix(prefix, token);
  const std::vector<TokenId>& stops = spec.stopping.stop_token_ids;
  while (static_cast<int>(answer.output.size()) < spec.stopping.max_new_tokens) {
    const TokenId token = NextToken(prefix, vocabulary);
    if (std::find(stops.begin(), stops.end(), token) != stops.end()) {
      answer.finish = FinishReason::kStop;
      answer.stop_token = token;
      break;
    }
    answer.output.push_back(token);
    prefix = Mix(prefix, token);
  }
  return answer;
}

SimulatedDevice::SimulatedDevice(const Scheduler::Options& options, int vocabulary)
    : options_(options),
      vocabulary_(vocabulary),
      slots_(options.num_blocks * options.block_tokens) {}

template <typename... Values>
void SimulatedDevice::Violate(const Values&... values) {
  violations_.push_back(absl::StrCat(values...));
}

StepResult SimulatedDevice::Run(const StepPlan& plan) {
  CheckShape(plan);
  StepResult result;
  for (const PlannedSequence& planned : plan.sequences) {
    result.sequences.push_back(RunSequence(plan, planned));
  }
  last_number_ = plan.number;
  return result;
}

void SimulatedDevice::CheckShape(const StepPlan& plan) {
  if (plan.number != last_number_ + 1) Violate("plan ", plan.number, " follows ", last_number_);
  if (plan.rows() == 0 || plan.rows() > options_.token_budget) Violate(plan.rows(), " rows");
  if (plan.positions.size() != plan.token_ids.size()) Violate(plan.positions.size(), " positions");
  if (static_cast<int>(plan.sequences.size()) > options_.max_batch) {
    Violate(plan.sequences.size(), " sequences");
  }
  std::set<SequenceId> ids;
  std::vector<int> readers(options_.num_blocks);
  int row = 0, decode_rows = 0;
  for (const PlannedSequence& planned : plan.sequences) {
    if (!ids.insert(planned.id).second) Violate("sequence ", planned.id, " twice in a plan");
    if (planned.first_row != row)
      Violate("sequence ", planned.id, " starts at row ", planned.first_row);
    const bool prompt_done =
        planned.first_position >= static_cast<int>(planned.spec->prompt.size());
    if (row < plan.decode_rows) {
      decode_rows += planned.num_rows;
      if (!prompt_done || planned.num_rows != 1)
        Violate("sequence ", planned.id, " does not decode");
    } else if (planned.num_rows > options_.prefill_chunk) {
      Violate("sequence ", planned.id, " has a chunk of ", planned.num_rows, " rows");
    }
    for (int i = 0; i < planned.num_rows; ++i, ++row) {
      if (plan.positions[row] != planned.first_position + i)
        Violate("row ", row, " is out of place");
    }
    const int end = planned.first_position + planned.num_rows;
    const int blocks = (end + options_.block_tokens - 1) / options_.block_tokens;
    if (static_cast<int>(planned.block_table.size()) != blocks) {
      Violate("sequence ", planned.id, " has ", planned.block_table.size(), " blocks for ", end);
    }
    for (const int block : planned.block_table) ++readers[block];
  }
  if (row != plan.rows()) Violate("sequences have ", row, " rows, the plan ", plan.rows());
  if (decode_rows != plan.decode_rows) Violate("counted ", decode_rows, " decode rows");
  for (const PlannedSequence& planned : plan.sequences) {
    for (std::size_t i = planned.first_position / options_.block_tokens;
         i < planned.block_table.size(); ++i) {
      const int block = planned.block_table[i];
      if (readers[block] != 1)
        Violate("block ", block, " is written by ", planned.id, " and read by another");
    }
  }
}

SimulatedDevice::History& SimulatedDevice::HistoryOf(const SequenceSpec& spec) {
  History& history = histories_[SerialOf(spec)];
  if (history.tokens.empty()) {
    std::uint64_t prefix = HashText(spec.router->fingerprint);
    for (const TokenId token : spec.prompt) {
      prefix = Mix(prefix, token);
      history.tokens.push_back(token);
      history.prefixes.push_back(prefix);
    }
  }
  history.computed.resize(history.tokens.size());
  return history;
}

SimulatedDevice::Slot& SimulatedDevice::SlotOf(const PlannedSequence& planned, int position) {
  const std::int64_t block = planned.block_table[position / options_.block_tokens];
  return slots_[block * options_.block_tokens + position % options_.block_tokens];
}

void SimulatedDevice::CheckReads(const PlannedSequence& planned, const History& history) {
  const SequenceSpec& spec = *planned.spec;
  const std::uint64_t scope = Mix(HashText(options_.share_cache_across_tenants ? "" : spec.tenant),
                                  HashText(spec.cache_salt));
  const bool reads_cache = options_.prefix_cache && !spec.bypass_cache &&
                           !spec.output.prompt_logprobs && !spec.output.prompt_trace;
  for (int position = 0; position < planned.first_position; ++position) {
    const Slot& slot = SlotOf(planned, position);
    const bool own = slot.writer == SerialOf(spec);
    if (slot.prefix != history.prefixes[position]) {
      Violate("sequence ", planned.id, " reads other tokens' KV at position ", position);
    } else if (slot.scope != scope) {
      Violate("sequence ", planned.id, " reads another tenant's or salt's KV at position ",
              position);
    } else if (!own && (!reads_cache || slot.bypass)) {
      Violate("sequence ", planned.id, " reads cached KV at position ", position,
              " against its wish");
    } else {
      continue;
    }
    return;
  }
}

SequenceResult SimulatedDevice::RunSequence(const StepPlan& plan, const PlannedSequence& planned) {
  const SequenceSpec& spec = *planned.spec;
  const int prompt = static_cast<int>(spec.prompt.size());
  const int end = planned.first_position + planned.num_rows;
  History& history = HistoryOf(spec);
  SequenceResult result;
  if (end > static_cast<int>(history.tokens.size())) {
    Violate("sequence ", planned.id, " has a row for a token that does not exist");
    return result;
  }
  CheckReads(planned, history);
  if (!history.started) reused_ += planned.first_position;
  history.started = true;
  const std::uint64_t scope = Mix(HashText(options_.share_cache_across_tenants ? "" : spec.tenant),
                                  HashText(spec.cache_salt));
  for (int i = 0; i < planned.num_rows; ++i) {
    const int position = planned.first_position + i;
    const TokenId given = plan.token_ids[planned.first_row + i];
    if (given == kTokenOfPreviousStep) {
      if (position != static_cast<int>(history.tokens.size()) - 1 ||
          history.last_sampled_in + 1 != plan.number) {
        Violate("sequence ", planned.id,
                " refers to a token that the previous step did not sample");
      }
    } else if (given != history.tokens[position]) {
      Violate("sequence ", planned.id, " is given token ", given, " at position ", position);
    }
    // What was in the cache before a preemption and is not any more counts as computed before, too.
    const bool recomputed = position < planned.first_new_position;
    const bool computed = history.computed[position] > 0;
    const bool as_marked = spec.background
                               ? recomputed  // its rows never count
                               : recomputed == computed || (recomputed && options_.prefix_cache);
    if (!as_marked) {
      Violate("sequence ", planned.id, " has position ", position, " marked wrongly as recomputed");
    }
    ++history.computed[position];
    recomputed_ += recomputed;
    SlotOf(planned, position) = {.prefix = history.prefixes[position],
                                 .scope = scope,
                                 .writer = SerialOf(spec),
                                 .bypass = spec.bypass_cache};
    if (spec.output.prompt_logprobs && position + 1 < prompt) {
      ScoredToken score;
      score.token = {.token = spec.prompt[position + 1], .logprob = static_cast<float>(-position)};
      result.prompt_scores.push_back(score);
    }
    if (spec.output.prompt_trace || (spec.output.router_trace && position >= prompt)) {
      result.traces.push_back({.position = position, .experts = {}, .weights = {}});
    }
  }
  const int num_output = static_cast<int>(history.tokens.size()) - prompt;
  if (planned.num_output != num_output) {
    Violate("sequence ", planned.id, " has ", num_output, " tokens sampled, is told ",
            planned.num_output);
  }
  const std::vector<TokenId>& output = *planned.output;
  if (!std::equal(output.begin(), output.end(), history.tokens.begin() + prompt,
                  history.tokens.begin() + prompt + std::min<int>(output.size(), num_output))) {
    Violate("sequence ", planned.id, " is told other output than it gave");
  }
  const bool samples =
      end == static_cast<int>(history.tokens.size()) && spec.stopping.max_new_tokens > 0;
  if (planned.samples != samples) Violate("sequence ", planned.id, " samples: ", planned.samples);
  if (!planned.samples) return result;
  if (num_output >= spec.stopping.max_new_tokens)
    Violate("sequence ", planned.id, " samples too much");
  const std::uint64_t prefix = SlotOf(planned, end - 1).prefix;
  const TokenId token = NextToken(prefix, vocabulary_);
  history.tokens.push_back(token);
  history.prefixes.push_back(Mix(prefix, token));
  history.last_sampled_in = plan.number;
  result.sampled.emplace();
  result.sampled->token = {.token = token, .logprob = -0.5f};
  return result;
}

}  // namespace penstock
