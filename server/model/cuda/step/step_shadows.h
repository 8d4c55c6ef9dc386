// A step's shadow routing: which routers are asked about whose rows, and what they said.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/compare_routes.h"
#include "server/model/cuda/step/router_slots.h"
#include "server/model/cuda/step/step_writer.h"
#include "server/model/model.h"
#include "server/scheduler/step_plan.h"

namespace penstock {

// What the host remembers of it until its results are there.
struct StepShadows {
  ShadowRouters routers;
  std::vector<std::string> names;  // [num_routers]
  int left_out = 0;                // of those that the plan asks, in this step

  bool empty() const { return routers.num_serving == 0; }
  std::int64_t pairs() const { return std::int64_t{routers.num_serving} * routers.num_routers; }
};

// The device's descriptors, [layers, slots] each: of routers that serve, and of routers that are
// only asked. Those are apart, so that nobody who serves ever waits for a slot of theirs.
struct ShadowPrograms {
  const RouterProgram* serving = nullptr;
  const RouterProgram* asked = nullptr;
};

// Each of the plan's shadows is asked about the counted rows that are served by routers of other
// names. `step` is the plan, written, with `serving` for its slots. A shadow for which there is no
// slot, or which would be more than ShadowRouters::kMax, is left out of this step. Where they are
// more than that they take turns by the step's number: none is left out for good.
StepShadows ArrangeShadows(const StepPlan& plan, const WrittenStep& step,
                           const RouterSlots& serving, RouterSlots* asked,
                           const ShadowPrograms& programs);

// agreements: [layers, pairs]; expert_rows: [layers, pairs, E]. Pairs without rows are left out.
std::vector<ShadowCounts> ReadShadows(const StepShadows& shadows, const ModelSpec& spec,
                                      const RouteAgreement* agreements,
                                      const std::int32_t* expert_rows);

}  // namespace penstock
