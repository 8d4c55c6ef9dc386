// Shadow routing of a step: other routers on the hidden states that its routers saw.
#include <cuda_runtime_api.h>

#include <algorithm>

#include "server/base/check.h"
#include "server/model/cuda/cuda_forward.h"

namespace penstock {

std::int64_t CudaForward::KeptLayers(std::int64_t rows) const {
  return std::clamp<std::int64_t>(kept_rows_ / std::max<std::int64_t>(rows, 1), 1, num_layers());
}

std::byte* CudaForward::HiddenStates(std::size_t layer, std::int64_t rows) const {
  const std::int64_t place = static_cast<std::int64_t>(layer) % KeptLayers(rows);
  return routed_ + 2 * place * rows * weights_->config().hidden_size;
}

ShadowShape CudaForward::Shadows() const {
  const ModelConfig& config = weights_->config();
  return {.max_rows = options_.max_rows,
          .max_layers = config.layers,
          .max_routers = ShadowRouters::kMax,
          .max_hidden = options_.max_hidden,
          .d = config.hidden_size,
          .experts = config.experts,
          .k = config.top_k};
}

void CudaForward::EnqueueShadows(const StepBounds& bounds, ForwardShadows* shadows,
                                 CudaStream stream) const {
  PENSTOCK_CHECK(KeepsHiddenStates(bounds.rows)) << bounds.rows << " rows";
  AskShadows(0, num_layers(), Arrange(bounds, stream), shadows);
}

void CudaForward::AskShadows(std::int64_t first, std::int64_t layers, const Step& step,
                             ForwardShadows* shadows) const {
  const ModelConfig& config = weights_->config();
  ShadowRouters routers = shadows->routers;
  const std::int64_t pairs = std::int64_t{routers.num_serving} * routers.num_routers;
  for (int i = 0; i < routers.num_routers; ++i)
    routers.routers[i].programs += first * options_.max_routers;
  const auto event = 2 * static_cast<std::size_t>(shadows->pieces++);
  cudaEventRecord(shadows->events[event], step.stream);
  ShadowRoutesCuda({.shape = Shadows(),
                    .layers = layers,
                    .rows = step.bounds.rows,
                    .routers = routers,
                    .program_stride = options_.max_routers,
                    .num_rows = step.rows.num_rows,
                    .row_routers = step.in.row_routers,
                    .counted = step.in.counted,
                    .token_ids = token_ids_,
                    .failed_layer = step.out.failed_layer,
                    .first_layer = static_cast<std::int32_t>(first),
                    .x = HiddenStates(static_cast<std::size_t>(first), step.bounds.rows),
                    .served = expert_ids_ + first * options_.max_rows * config.top_k,
                    .served_rows = options_.max_rows,
                    .scratch = shadow_scratch_,
                    .agreements = agreements_ + first * pairs,
                    .expert_rows = shadow_rows_ + first * pairs * config.experts},
                   step.stream);
  cudaEventRecord(shadows->events[event + 1], step.stream);
}

}  // namespace penstock
