// From what the device left for the host to a step's result.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/router_program.h"
#include "server/model/cuda/step/step_arrays.h"
#include "server/model/cuda/step/step_writer.h"
#include "server/model/model.h"
#include "server/scheduler/step_plan.h"

namespace penstock {

// Host memory that a step's results were copied to.
struct StepAnswers {
  StepOutputs outputs;
  const std::int32_t* top_tokens = nullptr;      // [logit rows, max_top], iff wants_top
  const float* top_log_probabilities = nullptr;  // [logit rows, max_top], iff wants_top
  const std::int32_t* expert_ids = nullptr;      // [layers, rows, k], iff wants_traces
  const float* expert_weights = nullptr;         // [layers, rows, k], iff wants_traces
  const std::uint64_t* expert_rows =
      nullptr;  // [layers, routers, E]; null: not copied after this step
  const RouterCounters* counters = nullptr;  // [layers, routers]
  std::int64_t routers = 0;                  // slots copied
  std::int64_t max_top = 0;
};

// Sees every step in order. The device's counters only rise: what they rose by since they were last
// copied is of the steps since then.
class StepReader {
 public:
  // telemetry: the counters will be copied, sooner or later.
  StepReader(const ModelSpec& spec, std::int64_t max_routers, int processors, bool telemetry);

  StepResult Read(const StepPlan& plan, const WrittenStep& step, const StepAnswers& answers);

 private:
  void ReadTokens(const StepPlan& plan, const WrittenStep& step, const StepAnswers& answers,
                  StepResult& result) const;
  void ReadTraces(const StepPlan& plan, const StepAnswers& answers, StepResult& result) const;
  void ReadCounts(const WrittenStep& step, const StepAnswers& answers, StepResult& result);
  void ReadRouter(const WrittenStep::RouterShare& share, const StepAnswers& answers,
                  StepResult& result);

  const ModelSpec& spec_;
  const std::int64_t max_routers_;
  const int processors_;  // of the device, that router time is averaged over
  const bool telemetry_;
  int uncounted_steps_ = 0;
  std::vector<WrittenStep::RouterShare> uncounted_;  // their routers
  std::vector<std::uint64_t> expert_rows_;  // [layers, max_routers, E], after the last step
  std::vector<RouterCounters> counters_;    // [layers, max_routers]
};

}  // namespace penstock
