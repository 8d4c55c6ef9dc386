#include "server/model/reference/step_answers.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"
#include "server/model/reference/parallel.h"
#include "server/model/reference/sampler.h"

namespace penstock {
namespace {

// Logits that are computed at a time: at most so many bytes, for prompts that want all of theirs.
constexpr std::int64_t kLogitBytes = 64 << 20;

// One row whose logits are needed.
struct LogitRow {
  std::int32_t row;
  std::size_t sequence;
  bool samples;       // else: the score of the prompt's next token
  std::size_t place;  // in prompt_scores
};

bool Traced(const OutputParams& output, const SequenceSpec& spec, int position) {
  return position < static_cast<int>(spec.prompt.size()) ? output.prompt_trace
                                                         : output.router_trace;
}

std::vector<RowTrace> TracesOf(const PlannedSequence& planned, const StepRouting& routing, int k) {
  std::vector<RowTrace> traces;
  for (int i = 0; i < planned.num_rows; ++i) {
    const int position = planned.first_position + i;
    if (!Traced(planned.spec->output, *planned.spec, position)) continue;
    RowTrace& trace = traces.emplace_back();
    trace.position = position;
    for (const LayerDecisions& layer : routing.layers) {
      const std::size_t first =
          static_cast<std::size_t>(planned.first_row + i) * static_cast<std::size_t>(k);
      for (std::size_t slot = first; slot < first + static_cast<std::size_t>(k); ++slot) {
        trace.experts.push_back(static_cast<std::uint8_t>(layer.experts[slot]));
        trace.weights.push_back(layer.weights[slot]);
      }
    }
  }
  return traces;
}

// INTERNAL if a router gave one of the sequence's rows a logit that is not finite.
absl::Status RoutingStatus(const PlannedSequence& planned, const StepRouting& routing) {
  for (int i = 0; i < planned.num_rows; ++i) {
    const std::size_t row =
        static_cast<std::size_t>(planned.first_row) + static_cast<std::size_t>(i);
    if (!routing.failed[row]) continue;
    return MakeError(
        absl::StatusCode::kInternal,
        absl::StrCat("router \"", planned.spec->router->name, "\": non-finite logit in layer ",
                     routing.failed_at[row], " at position ", planned.first_position + i),
        {.reason = "NON_FINITE_ROUTER_LOGIT", .field = "", .retry_after = std::nullopt});
  }
  return absl::OkStatus();
}

std::vector<LogitRow> RowsWithLogits(const StepPlan& plan, StepResult& result) {
  std::vector<LogitRow> rows;
  for (std::size_t s = 0; s < plan.sequences.size(); ++s) {
    const PlannedSequence& planned = plan.sequences[s];
    if (!result.sequences[s].status.ok()) continue;
    if (planned.spec->output.prompt_logprobs.has_value()) {
      const int scored = static_cast<int>(planned.spec->prompt.size()) - 1;
      const int end = std::min(planned.first_position + planned.num_rows, scored);
      for (int position = planned.first_position; position < end; ++position) {
        const auto place = static_cast<std::size_t>(position - planned.first_position);
        rows.push_back({planned.first_row + position - planned.first_position, s, false, place});
      }
      result.sequences[s].prompt_scores.resize(
          static_cast<std::size_t>(std::max(0, end - planned.first_position)));
    }
    if (planned.samples) rows.push_back({planned.first_row + planned.num_rows - 1, s, true, 0});
  }
  return rows;
}

}  // namespace

bool WantsTraces(const StepPlan& plan) {
  return std::any_of(
      plan.sequences.begin(), plan.sequences.end(), [](const PlannedSequence& planned) {
        return planned.spec->output.router_trace || planned.spec->output.prompt_trace;
      });
}

StepResult AnswerStep(const StepBatch& batch, const ModelSpec& spec, Element element,
                      StepRouting routing, Forward& forward, std::vector<Scratch>& scratch) {
  const StepPlan& plan = *batch.plan;
  StepResult result;
  result.sequences.resize(plan.sequences.size());
  for (std::size_t s = 0; s < plan.sequences.size(); ++s) {
    result.sequences[s].status = RoutingStatus(plan.sequences[s], routing);
    if (!routing.layers.empty())
      result.sequences[s].traces = TracesOf(plan.sequences[s], routing, spec.top_k);
  }

  const std::vector<LogitRow> wanted = RowsWithLogits(plan, result);
  const std::int64_t vocab = spec.vocab_size,
                     row_bytes = vocab * static_cast<std::int64_t>(SizeOf(element));
  const auto chunk = static_cast<std::size_t>(std::max<std::int64_t>(16, kLogitBytes / row_bytes));
  scratch.resize(std::max(scratch.size(), static_cast<std::size_t>(MaxWorkers())));
  // Filled by the workers, one entry a row; gathered afterwards.
  std::vector<absl::StatusOr<ScoredToken>> scores;
  for (std::size_t begin = 0; begin < wanted.size(); begin += chunk) {
    const std::size_t end = std::min(wanted.size(), begin + chunk);
    std::vector<std::int32_t> rows;
    for (std::size_t i = begin; i < end; ++i) rows.push_back(wanted[i].row);
    const auto* logits = static_cast<const std::byte*>(forward.Logits(rows));
    scores.assign(rows.size(), ScoredToken());
    ParallelFor(static_cast<std::int64_t>(rows.size()), false, [&](int worker, std::int64_t i) {
      const LogitRow& row = wanted[begin + static_cast<std::size_t>(i)];
      const PlannedSequence& planned = plan.sequences[row.sequence];
      Scratch& own = scratch[static_cast<std::size_t>(worker)];
      const std::byte* at = logits + i * row_bytes;
      if (row.samples) {
        scores[static_cast<std::size_t>(i)] = SampleToken(planned, element, at, vocab, own);
      } else {
        const TokenId next =
            planned.spec->prompt[static_cast<std::size_t>(planned.first_position) + row.place + 1];
        scores[static_cast<std::size_t>(i)] =
            ScoreToken(next, *planned.spec->output.prompt_logprobs, element, at, vocab, own);
      }
    });
    for (std::size_t i = begin; i < end; ++i) {
      SequenceResult& sequence = result.sequences[wanted[i].sequence];
      absl::StatusOr<ScoredToken>& score = scores[i - begin];
      if (!score.ok()) {
        sequence.status = score.status();
      } else if (wanted[i].samples) {
        sequence.sampled = *std::move(score);
      } else {
        sequence.prompt_scores[wanted[i].place] = *std::move(score);
      }
    }
  }

  for (std::size_t g = 0; g < batch.routers.size(); ++g) {
    result.routers.push_back({.router = batch.routers[g].router->name,
                              .rows = batch.routers[g].counted_rows,
                              .router_time = routing.router_time[g]});
  }
  result.routing = std::move(routing.counts);
  result.expert_passes = routing.expert_passes;
  result.shadows = std::move(routing.shadows);
  result.shadow_time = routing.shadow_time;
  return result;
}

}  // namespace penstock
