// Times of the reference model's steps, without the server around it: what hf_compare.py holds
// against transformers.
//   forward_bench FOLDER DTYPE BATCH PROMPT STEPS [THREADS] [router,router…]
// BATCH sequences of PROMPT random tokens each are computed in one step, then STEPS steps decode
// one token of each. Prints one JSON object: seconds of the prefill step and of every decode step.
// Routers are given to sequences in turn.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <random>

#include "ATen/Parallel.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"
#include "server/base/check.h"
#include "tests/server/model/reference/model_runner.h"

namespace penstock {
namespace {

// Of the clock on the wall, and of all threads' CPU time.
struct StepTime {
  double wall, cpu;
};

double CpuSeconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

StepTime TimeStep(ModelRunner& runner) {
  const auto start = std::chrono::steady_clock::now();
  const double cpu_start = CpuSeconds();
  PENSTOCK_CHECK(runner.Step()) << "no step to run";
  return {std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
          CpuSeconds() - cpu_start};
}

int Main(int argc, char** argv) {
  if (argc < 6) {
    std::fprintf(
        stderr,
        "usage: forward_bench FOLDER DTYPE BATCH PROMPT STEPS [THREADS] [router,router…]\n");
    return 2;
  }
  const int batch = std::atoi(argv[3]), prompt = std::atoi(argv[4]), steps = std::atoi(argv[5]);
  if (argc > 6) at::set_num_threads(std::atoi(argv[6]));
  std::vector<std::string> routers = {"linear"};
  if (argc > 7) routers = absl::StrSplit(argv[7], ',');

  const auto start = std::chrono::steady_clock::now();
  RunnerOptions options;
  options.model.dtype = argv[2];
  options.model.num_blocks = batch * ((prompt + steps + 2) / 16 + 2);
  options.scheduler.token_budget = std::max(batch * prompt, 256);
  options.scheduler.prefill_chunk = prompt;
  options.scheduler.prefix_cache = false;
  ModelRunner runner(argv[1], options);
  const double load =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::mt19937 generator(1);
  const auto add_all = [&](int new_tokens) {
    for (int i = 0; i < batch; ++i) {
      std::vector<TokenId> tokens;
      for (int t = 0; t < prompt; ++t) {
        tokens.push_back(static_cast<TokenId>(
            generator() % static_cast<unsigned>(runner.model().spec().vocab_size)));
      }
      SequenceSpec spec = GreedySpec(std::move(tokens), new_tokens);
      spec.router = runner.router(routers[static_cast<std::size_t>(i) % routers.size()]);
      runner.Add(std::move(spec));
    }
  };
  add_all(2);  // touches every page once
  runner.Run();
  add_all(steps + 2);
  const StepTime prefill = TimeStep(runner);
  nlohmann::json times = {{"load", load}, {"prefill", prefill.wall}, {"prefill_cpu", prefill.cpu}};
  for (int i = 0; i < steps; ++i) {
    const StepTime step = TimeStep(runner);
    times["decode"].push_back(step.wall);
    times["decode_cpu"].push_back(step.cpu);
  }
  std::cout << times << std::endl;
  return 0;
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) { return penstock::Main(argc, argv); }
