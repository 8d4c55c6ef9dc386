#include "server/engine_bench.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <random>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"

namespace penstock {
namespace {

using Wall = std::chrono::steady_clock;

// Steps at both ends of a decode run that are left out: the pipeline fills, and drains.
constexpr std::size_t kEdgeSteps = 4;

// What the engine reports of its steps, with the time at which each was committed.
class StepRecorder final : public Telemetry {
 public:
  struct Step {
    Wall::time_point at;
    StepPhase phase;
    std::int64_t rows = 0;
    double experts_per_layer = 0;
    bool shadowed = false;
    double shadow_seconds = 0;
  };

  void OnStep(const StepEvent& step) override {
    std::map<int, std::set<std::size_t>> experts;  // by layer
    for (const RoutingCounts& counts : step.routing) {
      for (std::size_t e = 0; e < counts.slots.size(); ++e) {
        if (counts.slots[e] > 0) experts[counts.layer].insert(e);
      }
    }
    double sum = 0;
    for (const auto& [layer, chosen] : experts) sum += static_cast<double>(chosen.size());
    steps.push_back(
        {Wall::now(), step.phase, step.rows,
         experts.empty() || step.routing_steps != 1 ? 0 : sum / static_cast<double>(experts.size()),
         step.shadow == ShadowOutcome::kCounted, absl::ToDoubleSeconds(step.shadow_time)});
  }
  void OnRequestFinished(const RequestEvent&) override {}
  void OnLoad(const LoadEvent&) override {}
  void OnThrottled(std::string_view, std::string_view) override {}

  std::vector<Step> steps;
};

double Seconds(Wall::duration duration) { return std::chrono::duration<double>(duration).count(); }

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

class EngineBench::State {
 public:
  State(const ModelConfig& config, const Options& options)
      : config_(config), prefill_chunk_(options.prefill_chunk), random_(options.seed) {}

  absl::Status Start(std::unique_ptr<Model> model, const Options& options) {
    Engine::Options engine;
    engine.scheduler.max_batch = options.max_batch;
    engine.scheduler.prefill_chunk = options.prefill_chunk;
    engine.scheduler.token_budget = options.prefill_chunk + options.max_batch;
    engine.scheduler.max_queue = 1 << 20;
    engine.scheduler.prefix_cache = false;
    engine.shadows = [this] { return shadows_; };
    PENSTOCK_ASSIGN_OR_RETURN(engine_,
                              Engine::Create(std::move(model), std::move(engine), &recorder_));
    engine_->SetEventHandler([this](const std::vector<SequenceEvent>& events) {
      for (const SequenceEvent& event : events) {
        tokens_ += static_cast<std::int64_t>(event.tokens.size());
        if (!event.finish) continue;
        --live_;
        if (*event.finish == FinishReason::kError) error_.Update(event.error);
      }
    });
    return absl::OkStatus();
  }

  const ModelSpec& spec() const { return engine_->model_spec(); }

  // The last token of an answer is not computed.
  std::int64_t Positions(const BenchCase& bench_case) const {
    const Lengths lengths = LengthsOf(bench_case);
    return std::int64_t{lengths.prompt} + lengths.output - 1;
  }

  absl::StatusOr<BenchRow> Run(const BenchCase& bench_case) {
    BenchRow row;
    row.measured = bench_case;
    recorder_.steps.clear();
    tokens_ = 0;
    error_ = absl::OkStatus();
    shadows_ = bench_case.shadows;
    // No bound on what it takes: that is what is measured.
    engine_->SetShadowSampling({.share = bench_case.shadow_share, .max_cost = 1000});
    const int requests = std::max(bench_case.sequences, bench_case.requests);
    int submitted = 0;
    const auto submit = [&](int count) -> absl::Status {
      std::vector<SequenceSpec> sequences;
      sequences.reserve(static_cast<std::size_t>(count));
      for (int i = 0; i < count; ++i) sequences.push_back(Sequence(bench_case, submitted++));
      live_ += count;
      return engine_->Submit(std::move(sequences));
    };
    const Wall::time_point start = Wall::now();
    PENSTOCK_RETURN_IF_ERROR(submit(bench_case.sequences));
    while (live_ > 0) {
      if (!engine_->RunStep())
        return absl::InternalError("the engine has nothing to do, and sequences that wait");
      const int room = std::min(bench_case.sequences - live_, requests - submitted);
      if (room > 0) PENSTOCK_RETURN_IF_ERROR(submit(room));
    }
    const double elapsed = Seconds(Wall::now() - start);
    PENSTOCK_RETURN_IF_ERROR(error_);
    switch (bench_case.kind) {
      case BenchCase::Kind::kDecode:
        return Decoded(std::move(row));
      case BenchCase::Kind::kPrefill:
        row.tokens_per_second =
            static_cast<double>(bench_case.sequences) * bench_case.prompt / elapsed;
        break;
      case BenchCase::Kind::kMixed:
        row.tokens_per_second = static_cast<double>(tokens_) / elapsed;
        break;
    }
    std::vector<double> steps;
    for (std::size_t i = 1; i < recorder_.steps.size(); ++i) {
      steps.push_back(Seconds(recorder_.steps[i].at - recorder_.steps[i - 1].at));
    }
    for (const StepRecorder::Step& step : recorder_.steps) {
      row.shadowed_steps += step.shadowed;
      row.shadow_seconds += step.shadow_seconds;
    }
    row.steps = static_cast<int>(recorder_.steps.size());
    row.mean_step_seconds = elapsed / row.steps;
    row.step_seconds = steps.empty() ? elapsed : Median(std::move(steps));
    return row;
  }

 private:
  struct Lengths {
    int prompt = 0, output = 0;  // tokens
  };
  Lengths LengthsOf(const BenchCase& bench_case) const {
    if (bench_case.kind != BenchCase::Kind::kDecode) return {bench_case.prompt, bench_case.output};
    // Early ones decode while the prompts of the others are computed; they must not end before.
    // The contexts' mean is centred on the wanted one.
    const int prefill_steps =
        static_cast<int>(std::int64_t{bench_case.sequences} * bench_case.prompt / prefill_chunk_) +
        1;
    return {std::max(1, bench_case.prompt - bench_case.output / 2 - prefill_steps / 2),
            bench_case.output + prefill_steps};
  }

  SequenceSpec Sequence(const BenchCase& bench_case, int index) {
    SequenceSpec sequence;
    sequence.id = ++last_id_;
    sequence.router =
        bench_case.routers[static_cast<std::size_t>(index) % bench_case.routers.size()];
    const auto [prompt, output] = LengthsOf(bench_case);
    std::uniform_int_distribution<TokenId> token(0, static_cast<TokenId>(config_.vocab_size) - 1);
    for (int i = 0; i < prompt; ++i) sequence.prompt.push_back(token(random_));
    sequence.sampling.temperature = 0;
    sequence.stopping.max_new_tokens = output;
    sequence.bypass_cache = true;
    return sequence;
  }

  // The times between steps in which every sequence decoded.
  absl::StatusOr<BenchRow> Decoded(BenchRow row) const {
    std::vector<double> steps, experts;
    const std::vector<StepRecorder::Step>& all = recorder_.steps;
    std::vector<std::size_t> full;
    for (std::size_t i = 1; i < all.size(); ++i) {
      if (all[i].phase == StepPhase::kDecode && all[i].rows == row.measured.sequences &&
          all[i - 1].phase == StepPhase::kDecode) {
        full.push_back(i);
      }
    }
    for (std::size_t i = kEdgeSteps; i + kEdgeSteps < full.size(); ++i) {
      steps.push_back(Seconds(all[full[i]].at - all[full[i] - 1].at));
      if (all[full[i]].experts_per_layer > 0) experts.push_back(all[full[i]].experts_per_layer);
      row.shadowed_steps += all[full[i]].shadowed;
      row.shadow_seconds += all[full[i]].shadow_seconds;
    }
    if (steps.empty()) {
      return absl::FailedPreconditionError(absl::StrCat(
          row.measured.name, ": no step in which all ", row.measured.sequences,
          " sequences decode: they do not fit the KV cache together, or the output is too short"));
    }
    row.steps = static_cast<int>(steps.size());
    for (const double step : steps) row.mean_step_seconds += step / row.steps;
    row.step_seconds = Median(steps);
    row.tokens_per_second = row.measured.sequences / row.step_seconds;
    double sum = 0;
    for (const double count : experts) sum += count;
    if (!experts.empty()) row.experts_per_layer = sum / static_cast<double>(experts.size());
    if (row.experts_per_layer > 0) {
      row.bytes = DecodeBytes(row);
      if (spec().backend == "cuda") {
        row.floor_seconds = row.bytes / kFloorBandwidth;
        row.fraction = row.floor_seconds / row.step_seconds;
      }
    }
    return row;
  }

  // Weights that the step touches, and the keys and values of every sequence's context.
  double DecodeBytes(const BenchRow& row) const {
    const double element = spec().dtype == "float32" ? 4 : 2;
    const auto d = static_cast<double>(config_.hidden_size);
    const auto heads = static_cast<double>(config_.heads * config_.head_dim),
               kv = static_cast<double>(2 * config_.kv_heads * config_.head_dim);
    const double layer =
        d * (heads + kv) + heads * d +
        3 * d * static_cast<double>(config_.shared_intermediate_size) +
        row.experts_per_layer * 3 * d * static_cast<double>(config_.moe_intermediate_size) +
        d * static_cast<double>(config_.experts);
    const double head = d * static_cast<double>(config_.vocab_size);
    const double cache =
        static_cast<double>(config_.layers) * kv * row.measured.prompt * row.measured.sequences;
    return element * (static_cast<double>(config_.layers) * layer + head + cache);
  }

  const ModelConfig config_;
  const int prefill_chunk_;
  std::mt19937_64 random_;
  StepRecorder recorder_;
  std::unique_ptr<Engine> engine_;
  std::vector<std::shared_ptr<const LoadedRouter>> shadows_;  // of the case that runs
  SequenceId last_id_ = 0;
  int live_ = 0;
  std::int64_t tokens_ = 0;
  absl::Status error_;
};

absl::StatusOr<std::unique_ptr<EngineBench>> EngineBench::Create(std::unique_ptr<Model> model,
                                                                 const ModelConfig& config,
                                                                 const Options& options) {
  auto state = std::make_unique<State>(config, options);
  PENSTOCK_RETURN_IF_ERROR(state->Start(std::move(model), options));
  return std::unique_ptr<EngineBench>(new EngineBench(std::move(state)));
}

EngineBench::EngineBench(std::unique_ptr<State> state) : state_(std::move(state)) {}
EngineBench::~EngineBench() = default;
const ModelSpec& EngineBench::spec() const { return state_->spec(); }

int EngineBench::Fitting(int positions) const {
  const ModelSpec& s = spec();
  const std::int64_t blocks = (positions + s.block_tokens - 1) / s.block_tokens;
  return static_cast<int>(s.num_blocks / blocks);
}

std::int64_t EngineBench::Positions(const BenchCase& bench_case) const {
  return state_->Positions(bench_case);
}

absl::StatusOr<BenchRow> EngineBench::Run(const BenchCase& bench_case) {
  return state_->Run(bench_case);
}

}  // namespace penstock
