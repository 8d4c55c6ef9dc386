// What telemetry and shadow routing cost a CPU server's steps.
//   shadow_bench FOLDER BATCH PROMPT STEPS [SHARE] [MAX_COST]
// BATCH sequences under all routers in turn decode STEPS tokens, with shadow routing on SHARE
// (default 0.01) of the steps, bound to MAX_COST (default 0.01) of their time, and every step's
// event told to the telemetry. Prints one JSON object: seconds of CPU of steps, of shadow routing
// within them and of telemetry, and both as a share of the rest; then the same steps again with the
// two left out, in pieces that alternate with the first, as a ratio of CPU time.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <random>

#include "ATen/Parallel.h"
#include "nlohmann/json.hpp"
#include "server/base/check.h"
#include "server/engine/shadow_steps.h"
#include "server/telemetry/prometheus_telemetry.h"
#include "tests/server/model/reference/model_runner.h"

namespace penstock {
namespace {

double CpuSeconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// Steps that run with one setting before the other has its turn.
constexpr int kPiece = 50;

class Bench {
 public:
  Bench(const std::string& folder, int batch, int prompt, int steps, const ShadowSampling& sampling)
      : runner_(folder, Options(batch, prompt, steps)), shadows_([this] { return loaded_; }) {
    for (const std::string& kind : runner_.kinds()) loaded_.push_back(runner_.router(kind));
    shadows_.SetSampling(sampling);
    const ModelSpec& spec = runner_.model().spec();
    auto telemetry = PrometheusTelemetry::Create({.num_experts = spec.num_experts,
                                                  .top_k = spec.top_k,
                                                  .layers = spec.sparse_layers,
                                                  .tenants = {},
                                                  .build = {}});
    PENSTOCK_CHECK(telemetry.ok()) << telemetry.status().ToString();
    telemetry_ = *std::move(telemetry);
    telemetry_->OnRoutersLoaded(runner_.kinds());
    std::mt19937 generator(1);
    for (int i = 0; i < batch; ++i) {
      std::vector<TokenId> tokens;
      for (int t = 0; t < prompt; ++t) {
        tokens.push_back(
            static_cast<TokenId>(generator() % static_cast<unsigned>(spec.vocab_size)));
      }
      SequenceSpec sequence = GreedySpec(std::move(tokens), steps + 2);
      sequence.router = loaded_[static_cast<std::size_t>(i) % loaded_.size()];
      runner_.Add(std::move(sequence));
    }
    Step(false);  // the prompts
  }

  // CPU seconds of one step, telemetry's included.
  double Step(bool measured) {
    measured_ = measured;
    const double start = CpuSeconds();
    PENSTOCK_CHECK(runner_.Step()) << "no step to run";
    const double ran = CpuSeconds();
    if (measured) {
      StepResult result = runner_.results().back();
      const double copied = CpuSeconds();
      StepEvent event;
      event.rows = plan_.rows();
      event.duration = absl::Seconds(ran - start);
      event.routers = std::move(result.routers);
      event.routing = std::move(result.routing);
      event.expert_passes = result.expert_passes;
      shadows_.Finish(plan_, outcome_, result, event);
      shadowed_ += event.shadow == ShadowOutcome::kCounted;
      skipped_ += event.shadow == ShadowOutcome::kSkipped;
      shadow_seconds_ += absl::ToDoubleSeconds(event.shadow_time);
      telemetry_->OnStep(event);
      const double told = CpuSeconds() - copied;
      telemetry_seconds_ += told;
      return ran - start + told;
    }
    return ran - start;
  }

  nlohmann::json Run(int steps) {
    double with = 0, without = 0;
    int pairs = 0;
    for (int step = 0; step < steps; ++step) {
      const bool measured = step / kPiece % 2 == 0;
      (measured ? with : without) += Step(measured);
      pairs += measured;
    }
    const double rest = with - shadow_seconds_ - telemetry_seconds_;
    return {{"steps_each", pairs},
            {"cpu_seconds_with", with},
            {"cpu_seconds_without", without},
            {"ratio", with / without},
            {"shadowed_steps", shadowed_},
            {"skipped_steps", skipped_},
            {"shadow_share", shadow_seconds_ / rest},
            {"telemetry_share", telemetry_seconds_ / rest}};
  }

 private:
  RunnerOptions Options(int batch, int prompt, int steps) {
    RunnerOptions options;
    options.model.num_blocks = batch * ((prompt + steps + 2) / 16 + 2);
    options.scheduler.token_budget = std::max(batch * prompt, 256);
    options.scheduler.prefill_chunk = prompt;
    options.scheduler.prefix_cache = false;
    options.on_plan = [this](StepPlan& plan) {
      if (measured_) outcome_ = shadows_.Choose(plan);
      plan_ = plan;
    };
    return options;
  }

  bool measured_ = false;
  StepPlan plan_;
  ShadowOutcome outcome_ = ShadowOutcome::kNone;
  std::vector<std::shared_ptr<const LoadedRouter>> loaded_;
  ModelRunner runner_;
  ShadowSteps shadows_;
  std::unique_ptr<PrometheusTelemetry> telemetry_;
  double shadow_seconds_ = 0, telemetry_seconds_ = 0;
  int shadowed_ = 0, skipped_ = 0;
};

int Main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: shadow_bench FOLDER BATCH PROMPT STEPS [SHARE] [MAX_COST]\n");
    return 2;
  }
  at::set_num_threads(1);  // threads that wait for each other would count as work
  const int steps = std::atoi(argv[4]);
  Bench bench(argv[1], std::atoi(argv[2]), std::atoi(argv[3]), steps,
              {.share = argc > 5 ? std::atof(argv[5]) : 0.01,
               .max_cost = argc > 6 ? std::atof(argv[6]) : 0.01});
  std::cout << bench.Run(steps) << std::endl;
  return 0;
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) { return penstock::Main(argc, argv); }
