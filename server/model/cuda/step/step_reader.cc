#include "server/model/cuda/step/step_reader.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/base/error.h"

namespace penstock {
namespace {

// INTERNAL if a router gave one of the sequence's rows a logit that is not finite.
absl::Status RoutingStatus(const PlannedSequence& planned, const std::int32_t* failed_layer) {
  for (int i = 0; i < planned.num_rows; ++i) {
    const std::int32_t layer = failed_layer[planned.first_row + i];
    if (layer < 0) continue;
    return MakeError(
        absl::StatusCode::kInternal,
        absl::StrCat("router \"", planned.spec->router->name, "\": non-finite logit in layer ",
                     layer, " at position ", planned.first_position + i),
        {.reason = "NON_FINITE_ROUTER_LOGIT", .field = "", .retry_after = std::nullopt});
  }
  return absl::OkStatus();
}

absl::Status NonFiniteLogits() {
  return MakeError(absl::StatusCode::kInternal,
                   "the model's output logits are not finite: its weights overflow in this dtype, "
                   "or are damaged",
                   {.reason = "NON_FINITE_LOGITS", .field = "", .retry_after = std::nullopt});
}

}  // namespace

StepReader::StepReader(const ModelSpec& spec, std::int64_t max_routers, int processors,
                       bool telemetry)
    : spec_(spec),
      max_routers_(max_routers),
      processors_(processors),
      telemetry_(telemetry),
      expert_rows_(static_cast<std::size_t>(spec.num_layers * max_routers * spec.num_experts)),
      counters_(static_cast<std::size_t>(spec.num_layers * max_routers)) {}

StepResult StepReader::Read(const StepPlan& plan, const WrittenStep& step,
                            const StepAnswers& answers) {
  StepResult result;
  result.sequences.resize(plan.sequences.size());
  for (std::size_t s = 0; s < plan.sequences.size(); ++s) {
    absl::Status& status = result.sequences[s].status;
    status = step.status[s];
    if (status.ok()) status = RoutingStatus(plan.sequences[s], answers.outputs.failed_layer);
  }
  ReadTokens(plan, step, answers, result);
  if (step.wants_traces) ReadTraces(plan, answers, result);
  ReadCounts(step, answers, result);
  result.expert_passes = static_cast<int>(spec_.sparse_layers.size());
  return result;
}

void StepReader::ReadTokens(const StepPlan& plan, const WrittenStep& step,
                            const StepAnswers& answers, StepResult& result) const {
  for (std::size_t i = 0; i < step.logit_rows.size(); ++i) {
    const LogitRow& row = step.logit_rows[i];
    SequenceResult& sequence = result.sequences[row.sequence];
    if (!sequence.status.ok()) continue;
    if (answers.outputs.finite[i] == 0) {
      sequence.status = NonFiniteLogits();
      continue;
    }
    ScoredToken scored;
    scored.token = {answers.outputs.sampled[i], answers.outputs.log_probability[i]};
    const OutputParams& output = plan.sequences[row.sequence].spec->output;
    const std::optional<int>& wanted = row.samples ? output.logprobs : output.prompt_logprobs;
    const std::int64_t top = std::min<std::int64_t>(
        {wanted.value_or(0), answers.max_top, std::int64_t{spec_.vocab_size}});
    for (std::int64_t t = 0; t < top; ++t) {
      const std::size_t at =
          i * static_cast<std::size_t>(answers.max_top) + static_cast<std::size_t>(t);
      scored.top.push_back({answers.top_tokens[at], answers.top_log_probabilities[at]});
    }
    if (row.samples) {
      sequence.sampled = std::move(scored);
    } else {
      sequence.prompt_scores.resize(std::max(sequence.prompt_scores.size(), row.place + 1));
      sequence.prompt_scores[row.place] = std::move(scored);
    }
  }
}

void StepReader::ReadTraces(const StepPlan& plan, const StepAnswers& answers,
                            StepResult& result) const {
  const auto k = static_cast<std::size_t>(spec_.top_k),
             rows = static_cast<std::size_t>(plan.rows());
  for (std::size_t s = 0; s < plan.sequences.size(); ++s) {
    const PlannedSequence& planned = plan.sequences[s];
    for (int i = 0; i < planned.num_rows; ++i) {
      const int position = planned.first_position + i;
      const OutputParams& output = planned.spec->output;
      const bool in_prompt = position < static_cast<int>(planned.spec->prompt.size());
      if (in_prompt ? !output.prompt_trace : !output.router_trace) continue;
      RowTrace& trace = result.sequences[s].traces.emplace_back();
      trace.position = position;
      for (std::size_t layer = 0; layer < spec_.sparse_layers.size(); ++layer) {
        const std::size_t first =
            (layer * rows + static_cast<std::size_t>(planned.first_row + i)) * k;
        for (std::size_t at = first; at < first + k; ++at) {
          trace.experts.push_back(static_cast<std::uint8_t>(answers.expert_ids[at]));
          trace.weights.push_back(answers.expert_weights[at]);
        }
      }
    }
  }
}

void StepReader::ReadCounts(const WrittenStep& step, const StepAnswers& answers,
                            StepResult& result) {
  for (const WrittenStep::RouterShare& share : step.routers) {
    result.routers.push_back(
        {.router = share.router, .rows = share.counted_rows, .router_time = {}});
  }
  result.routing_steps = 0;
  if (!telemetry_) return;
  ++uncounted_steps_;
  for (const WrittenStep::RouterShare& share : step.routers) {
    const auto known = std::find_if(
        uncounted_.begin(), uncounted_.end(),
        [&](const WrittenStep::RouterShare& other) { return other.slot == share.slot; });
    if (known == uncounted_.end()) {
      uncounted_.push_back(share);
    } else {
      known->counted_rows += share.counted_rows;
    }
  }
  if (answers.counters == nullptr) return;
  for (const WrittenStep::RouterShare& share : uncounted_) ReadRouter(share, answers, result);
  result.routing_steps = uncounted_steps_;
  uncounted_steps_ = 0;
  uncounted_.clear();
}

void StepReader::ReadRouter(const WrittenStep::RouterShare& share, const StepAnswers& answers,
                            StepResult& result) {
  const auto experts = static_cast<std::size_t>(spec_.num_experts);
  std::uint64_t nanoseconds = 0;
  for (std::size_t layer = 0; layer < spec_.sparse_layers.size(); ++layer) {
    const std::size_t now =
        layer * static_cast<std::size_t>(answers.routers) + static_cast<std::size_t>(share.slot);
    const std::size_t kept =
        layer * static_cast<std::size_t>(max_routers_) + static_cast<std::size_t>(share.slot);
    const RouterCounters after = answers.counters[now], before = counters_[kept];
    counters_[kept] = after;
    nanoseconds += after.nanoseconds - before.nanoseconds;
    RoutingCounts counts;
    counts.router = share.router;
    counts.layer = spec_.sparse_layers[layer];
    counts.rows = static_cast<std::int64_t>(after.rows - before.rows);
    counts.entropy = static_cast<double>(after.entropy - before.entropy) / kCounterScale;
    counts.topk_mass = static_cast<double>(after.top_k_mass - before.top_k_mass) / kCounterScale;
    counts.slots.resize(experts);
    for (std::size_t e = 0; e < experts; ++e) {
      std::uint64_t& known = expert_rows_[kept * experts + e];
      const std::uint64_t rows = answers.expert_rows[now * experts + e];
      counts.slots[e] = static_cast<std::int64_t>(rows - known);
      known = rows;
    }
    if (share.counted_rows > 0) result.routing.push_back(std::move(counts));
  }
  const auto own =
      std::find_if(result.routers.begin(), result.routers.end(),
                   [&](const RouterStepShare& router) { return router.router == share.router; });
  RouterStepShare& router = own != result.routers.end()
                                ? *own
                                : result.routers.emplace_back(RouterStepShare{
                                      .router = share.router, .rows = 0, .router_time = {}});
  router.router_time += absl::Nanoseconds(static_cast<std::int64_t>(nanoseconds) / processors_);
}

}  // namespace penstock
