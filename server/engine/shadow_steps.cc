#include "server/engine/shadow_steps.h"

#include <algorithm>
#include <utility>

namespace penstock {
namespace {

// Rows times routers: one is not asked about rows of its own, which makes this a bound.
std::int64_t WorkOf(const StepPlan& plan) {
  return plan.rows() * static_cast<std::int64_t>(plan.shadows.size());
}

bool ServesNotAll(const LoadedRouter& router, const StepPlan& plan) {
  return std::any_of(
      plan.sequences.begin(), plan.sequences.end(),
      [&](const PlannedSequence& planned) { return planned.spec->router->name != router.name; });
}

}  // namespace

bool ShadowSteps::Wanted(const LoadedRouter& router) const {
  const std::vector<std::string>& names = sampling_.routers;
  return names.empty() || std::find(names.begin(), names.end(), router.name) != names.end();
}

ShadowSteps::ShadowSteps(Routers routers)
    : routers_(std::move(routers)), budget_(sampling_.max_cost) {}

void ShadowSteps::SetSampling(const ShadowSampling& sampling) {
  std::lock_guard<std::mutex> lock(mutex_);
  wanted_ = sampling;
}

ShadowOutcome ShadowSteps::Choose(StepPlan& plan) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (wanted_.max_cost != sampling_.max_cost) budget_ = ShadowBudget(wanted_.max_cost);
    sampling_ = wanted_;
  }
  if (routers_ == nullptr || !InShadowSample(sampling_, plan.number)) return ShadowOutcome::kNone;
  for (std::shared_ptr<const LoadedRouter>& router : routers_()) {
    if (Wanted(*router) && ServesNotAll(*router, plan)) plan.shadows.push_back(std::move(router));
  }
  if (plan.shadows.empty()) return ShadowOutcome::kNone;
  if (budget_.Allows(WorkOf(plan))) return ShadowOutcome::kCounted;
  plan.shadows.clear();
  return ShadowOutcome::kSkipped;
}

void ShadowSteps::Finish(const StepPlan& plan, ShadowOutcome outcome, StepResult& result,
                         StepEvent& event) {
  event.shadow = outcome;
  event.shadows = std::move(result.shadows);
  event.shadow_time = result.shadow_time;
  budget_.Account(event.duration - event.shadow_time, WorkOf(plan), event.shadow_time);
}

}  // namespace penstock
