// From a forward pass to the step's result: sampled tokens, scores of prompts, traces and counts.
#pragma once

#include <vector>

#include "kernels/element.h"
#include "server/model/model.h"
#include "server/model/reference/forward.h"
#include "server/model/reference/host_buffer.h"
#include "server/model/reference/step_batch.h"

namespace penstock {

// Whether some sequence wants the experts of its rows.
bool WantsTraces(const StepPlan& plan);

// `forward` has just run the batch. `scratch` grows to one for each worker.
StepResult AnswerStep(const StepBatch& batch, const ModelSpec& spec, Element element,
                      StepRouting routing, Forward& forward, std::vector<Scratch>& scratch);

}  // namespace penstock
