// Shadow routing of the GPU backend's steps: descriptors going in, counts and times coming out.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <utility>

#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/model/cuda/cuda_model_state.h"

namespace penstock {

// Of a written step, before it is started.
absl::Status CudaModel::PrepareShadows(Flight& flight) {
  flight.shadows = {};
  if (flight.plan->shadows.empty()) return absl::OkStatus();
  flight.shadows =
      ArrangeShadows(*flight.plan, flight.step, *routers_, &*asked_routers_,
                     {.serving = forward_->programs(), .asked = forward_->shadow_programs()});
  if (flight.shadows.left_out > 0 && !std::exchange(told_of_turns_, true)) {
    Log(LogLevel::kWarning,
        "shadow routing asks fewer routers in a step than are loaded: they take turns",
        {{"routers", static_cast<std::int64_t>(flight.plan->shadows.size())},
         {"most", std::int64_t{ShadowRouters::kMax}},
         {"left_out", std::int64_t{flight.shadows.left_out}}});
  }
  flight.asked.routers = flight.shadows.routers;
  flight.asked.pieces = 0;
  if (!asked_routers_->TakeChanged()) return absl::OkStatus();
  const std::vector<RouterProgram>& programs = asked_routers_->programs();
  std::copy(programs.begin(), programs.end(), flight.shadow_programs);
  return Copy(forward_->shadow_programs(), flight.shadow_programs,
              static_cast<std::int64_t>(programs.size() * sizeof(RouterProgram)));
}

absl::Status CudaModel::CopyShadowsOut(Flight& flight) {
  if (flight.shadows.empty()) return absl::OkStatus();
  const std::int64_t pairs = config_.layers * flight.shadows.pairs();
  PENSTOCK_RETURN_IF_ERROR(Copy(flight.agreements, forward_->agreements(),
                                pairs * static_cast<std::int64_t>(sizeof(RouteAgreement))));
  return Copy(flight.shadow_rows, forward_->shadow_rows(), 4 * pairs * config_.experts);
}

// Of a step that is done.
absl::Status CudaModel::ReadShadowsOf(const Flight& flight, StepResult& result) const {
  if (flight.shadows.empty()) return absl::OkStatus();
  result.shadows = ReadShadows(flight.shadows, spec_, flight.agreements, flight.shadow_rows);
  for (std::size_t piece = 0; piece < static_cast<std::size_t>(flight.asked.pieces); ++piece) {
    float milliseconds = 0;
    PENSTOCK_RETURN_IF_ERROR(
        CudaStatus(cudaEventElapsedTime(&milliseconds, flight.asked.events[2 * piece],
                                        flight.asked.events[2 * piece + 1]),
                   "timing shadow routing"));
    result.shadow_time += absl::Milliseconds(milliseconds);
  }
  return absl::OkStatus();
}

}  // namespace penstock
