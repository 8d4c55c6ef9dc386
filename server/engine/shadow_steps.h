// Shadow routing as the engine runs it: which steps ask other routers, and what that cost.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "server/experiments/shadow_sampling.h"
#include "server/scheduler/step_plan.h"

namespace penstock {

// SetSampling may be called from any thread, the others from the engine's.
class ShadowSteps {
 public:
  // `routers`: those that are loaded now. Empty: there is no shadow routing.
  using Routers = std::function<std::vector<std::shared_ptr<const LoadedRouter>>()>;
  explicit ShadowSteps(Routers routers);

  // From the next step on. Another max_cost starts with no credit.
  void SetSampling(const ShadowSampling& sampling);

  // Puts the loaded routers into a plan that is in the sample, if the budget allows.
  ShadowOutcome Choose(StepPlan& plan);

  // The step is over: accounts for its cost, and moves what was counted into the event.
  // `event.duration` is set. `outcome`: what Choose said.
  void Finish(const StepPlan& plan, ShadowOutcome outcome, StepResult& result, StepEvent& event);

 private:
  bool Wanted(const LoadedRouter& router) const;

  const Routers routers_;
  std::mutex mutex_;
  ShadowSampling wanted_;  // guarded by mutex_

  ShadowSampling sampling_;
  ShadowBudget budget_;
};

}  // namespace penstock
