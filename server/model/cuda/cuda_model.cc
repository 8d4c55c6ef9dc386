#include "server/model/cuda/cuda_model.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "c10/util/Exception.h"
#include "server/base/check.h"
#include "server/base/status_macros.h"
#include "server/model/cuda/cuda_model_state.h"

namespace penstock {
namespace {

// The counters of routing decisions are copied after two neighbouring steps of so many, and when no
// step is in flight: the second of the two tells of one step alone.
constexpr std::uint64_t kCountInterval = 16;

}  // namespace

void CudaModel::Submit(const StepPlan& plan) {
  PENSTOCK_CHECK_LT(in_flight_.size(), static_cast<std::size_t>(kInFlight))
      << "step " << plan.number;
  Flight& flight = flights_[turn_++ % kInFlight];
  flight.plan = &plan;
  in_flight_.push_back(&flight);
  try {
    flight.status = lost_.ok() ? Start(plan, flight) : lost_;
  } catch (const c10::Error& error) {
    flight.status =
        absl::UnavailableError(absl::StrCat("LibTorch: ", error.what_without_backtrace()));
  }
}

absl::StatusOr<StepResult> CudaModel::Await() {
  PENSTOCK_CHECK(!in_flight_.empty()) << "no step was submitted";
  Flight& flight = *in_flight_.front();
  in_flight_.pop_front();
  const StepPlan& plan = *std::exchange(flight.plan, nullptr);
  if (flight.status.ok()) {
    flight.status =
        CudaStatus(cudaEventSynchronize(flight.done), absl::StrCat("running step ", plan.number));
  }
  if (!flight.status.ok()) {
    if (absl::IsUnavailable(flight.status)) lost_ = flight.status;
    return flight.status;
  }
  if (options_.telemetry && !flight.counts && in_flight_.empty()) {
    flight.status = CopyCounts(flight);
    if (flight.status.ok())
      flight.status = CudaStatus(cudaStreamSynchronize(stream_), "reading counters");
    if (!flight.status.ok()) return lost_ = flight.status;
  }
  // A slot goes to another router when its counts are read, not before.
  if (flight.counts || !options_.telemetry) routers_->Release(plan.number);
  asked_routers_->Release(plan.number);
  Carver carver(flight.outputs);
  const StepAnswers answers{.outputs = StepOutputs::Lay(flight.bounds, carver),
                            .top_tokens = flight.top_tokens,
                            .top_log_probabilities = flight.top_log_probabilities,
                            .expert_ids = flight.expert_ids,
                            .expert_weights = flight.expert_weights,
                            .expert_rows = flight.expert_rows,
                            .counters = flight.counts ? flight.counters : nullptr,
                            .routers = flight.routers,
                            .max_top = kMaxTop};
  StepResult result = reader_->Read(plan, flight.step, answers);
  flight.status = ReadShadowsOf(flight, result);
  if (!flight.status.ok()) return lost_ = flight.status;
  return result;
}

absl::Status CudaModel::Start(const StepPlan& plan, Flight& flight) {
  std::vector<LogitRow> logit_rows = writer_->LogitRows(plan);
  PENSTOCK_CHECK_LE(plan.rows(), forward_->options().max_rows);
  const bool graphed = plan.decode_rows == plan.rows() && plan.rows() <= LargestBucket() &&
                       static_cast<int>(logit_rows.size()) <= plan.rows();
  if (graphed) {
    const std::int64_t bucket = BucketOf(plan.rows());
    flight.bounds = {.rows = bucket, .decode_rows = bucket, .logit_rows = bucket};
  } else {
    flight.bounds = {.rows = plan.rows(),
                     .decode_rows = plan.decode_rows,
                     .logit_rows = static_cast<std::int64_t>(logit_rows.size())};
  }
  Carver carver(flight.inputs);
  flight.target.inputs = StepInputs::Lay(flight.bounds, carver);
  flight.step = writer_->Write(plan, std::move(logit_rows), flight.target);
  PENSTOCK_RETURN_IF_ERROR(
      Copy(forward_->input_memory(), flight.inputs, carver.used() + 4 * flight.step.table_entries));
  PENSTOCK_RETURN_IF_ERROR(CopyIn(flight));
  PENSTOCK_RETURN_IF_ERROR(PrepareShadows(flight));
  ForwardShadows* shadows = flight.shadows.empty() ? nullptr : &flight.asked;
  if (graphed) {
    PENSTOCK_RETURN_IF_ERROR(
        CudaStatus(cudaGraphLaunch(graphs_.at(flight.bounds.rows), stream_), "starting a step"));
    // Behind the graph, which is the same with shadow routing and without.
    if (shadows != nullptr) forward_->EnqueueShadows(flight.bounds, shadows, stream_);
  } else {
    forward_->Enqueue(flight.bounds, stream_, shadows);
  }
  PENSTOCK_RETURN_IF_ERROR(CudaStatus(cudaGetLastError(), "starting a step"));
  PENSTOCK_RETURN_IF_ERROR(CopyOut(flight));
  PENSTOCK_RETURN_IF_ERROR(CopyShadowsOut(flight));
  return CudaStatus(cudaEventRecord(flight.done, stream_), "starting a step");
}

// All but the arrays of the step itself.
absl::Status CudaModel::CopyIn(Flight& flight) {
  const WrittenStep& step = flight.step;
  if (routers_->TakeChanged()) {
    const std::vector<RouterProgram>& programs = routers_->programs();
    std::copy(programs.begin(), programs.end(), flight.programs);
    PENSTOCK_RETURN_IF_ERROR(
        Copy(forward_->programs(), flight.programs,
             static_cast<std::int64_t>(programs.size() * sizeof(RouterProgram))));
  }
  if (step.list_entries > 0) {
    PENSTOCK_RETURN_IF_ERROR(
        Copy(forward_->bias_tokens(), flight.target.bias_tokens, 4 * step.list_entries));
    PENSTOCK_RETURN_IF_ERROR(Copy(forward_->biases(), flight.target.biases, 4 * step.list_entries));
    PENSTOCK_RETURN_IF_ERROR(Copy(forward_->banned(), flight.target.banned, 4 * step.list_entries));
  }
  for (const auto& [slot, tokens] : step.histories) {
    PENSTOCK_RETURN_IF_ERROR(Copy(forward_->histories() + slot * forward_->history_stride(),
                                  tokens.data(), 4 * static_cast<std::int64_t>(tokens.size())));
  }
  return absl::OkStatus();
}

absl::Status CudaModel::CopyOut(Flight& flight) {
  Carver outputs(flight.outputs);
  StepOutputs::Lay(flight.bounds, outputs);
  PENSTOCK_RETURN_IF_ERROR(Copy(flight.outputs, forward_->output_memory(), outputs.used()));
  const auto logit_rows = static_cast<std::int64_t>(flight.step.logit_rows.size());
  if (flight.step.wants_top) {
    const std::int64_t bytes = 4 * logit_rows * kMaxTop;
    PENSTOCK_RETURN_IF_ERROR(Copy(flight.top_tokens, forward_->top_tokens(), bytes));
    PENSTOCK_RETURN_IF_ERROR(
        Copy(flight.top_log_probabilities, forward_->top_log_probabilities(), bytes));
  }
  if (flight.step.wants_traces) {
    const std::int64_t width = 4 * flight.plan->rows() * config_.top_k,
                       pitch = 4 * forward_->options().max_rows * config_.top_k;
    PENSTOCK_RETURN_IF_ERROR(
        Copy(flight.expert_ids, width, forward_->expert_ids(), pitch, width, config_.layers));
    PENSTOCK_RETURN_IF_ERROR(Copy(flight.expert_weights, width, forward_->expert_weights(), pitch,
                                  width, config_.layers));
  }
  flight.counts = false;
  const bool counts = options_.telemetry && (flight.plan->number + 1) % kCountInterval < 2;
  return counts ? CopyCounts(flight) : absl::OkStatus();
}

absl::Status CudaModel::CopyCounts(Flight& flight) {
  flight.counts = true;
  flight.routers = routers_->used();
  const auto size = static_cast<std::int64_t>(sizeof(RouterCounters));
  PENSTOCK_RETURN_IF_ERROR(Copy(flight.counters, size * flight.routers, forward_->counters(),
                                size * options_.max_routers, size * flight.routers,
                                config_.layers));
  const std::int64_t row = 8 * config_.experts;
  return Copy(flight.expert_rows, row * flight.routers, forward_->expert_rows(),
              row * options_.max_routers, row * flight.routers, config_.layers);
}

absl::Status CudaModel::Copy(void* to, const void* from, std::int64_t bytes) const {
  return CudaStatus(
      cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, stream_),
      "copying a step");
}
absl::Status CudaModel::Copy(void* to, std::int64_t to_pitch, const void* from,
                             std::int64_t from_pitch, std::int64_t width,
                             std::int64_t height) const {
  return CudaStatus(
      cudaMemcpy2DAsync(to, static_cast<std::size_t>(to_pitch), from,
                        static_cast<std::size_t>(from_pitch), static_cast<std::size_t>(width),
                        static_cast<std::size_t>(height), cudaMemcpyDefault, stream_),
      "copying a step");
}

absl::StatusOr<std::unique_ptr<Model>> CreateCudaModel(const Checkpoint& checkpoint,
                                                       const CudaModelOptions& options) {
  PENSTOCK_ASSIGN_OR_RETURN(DeviceWeights weights,
                            DeviceWeights::Load(checkpoint, options.progress));
  return CudaModel::Create(std::move(weights), options);
}

absl::StatusOr<std::unique_ptr<Model>> CreateDummyCudaModel(const ModelConfig& config,
                                                            const CudaModelOptions& options) {
  PENSTOCK_ASSIGN_OR_RETURN(DeviceWeights weights,
                            DeviceWeights::MakeRandom(config, options.dummy_seed));
  return CudaModel::Create(std::move(weights), options);
}

}  // namespace penstock
