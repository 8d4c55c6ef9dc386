// What the GPU backend holds: cuda_model.h says what it does.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "server/model/cuda/cuda_forward.h"
#include "server/model/cuda/cuda_model.h"
#include "server/model/cuda/device_memory.h"
#include "server/model/cuda/device_weights.h"
#include "server/model/cuda/step/router_slots.h"
#include "server/model/cuda/step/step_reader.h"
#include "server/model/cuda/step/step_shadows.h"
#include "server/model/cuda/step/step_writer.h"

struct CUevent_st;
struct CUgraphExec_st;

namespace penstock {

// What the GPU engine is made for.
inline constexpr int kInFlight = 2;
inline constexpr std::int64_t kMaxStepRows = 16384;    // of the routing kernels
inline constexpr std::int64_t kMaxTop = 64;            // alternatives beside a scored token
inline constexpr std::int64_t kMaxTokenLists = 32768;  // logit_bias entries, and bans, of a step
inline constexpr std::int64_t kLargestGraph = 256;     // rows of a decode step that is a graph

// The smallest bucket that holds so many rows: 1, 2, 4, 8, 16, 24, …
constexpr std::int64_t BucketOf(std::int64_t rows) {
  if (rows <= 2) return rows;
  return rows <= 4 ? 4 : (rows + 7) / 8 * 8;
}

// One of the steps in flight: its host memory, and what it was asked.
struct Flight {
  PinnedBuffer memory;
  CUevent_st* done = nullptr;
  // Host memory of `memory`.
  std::byte *inputs = nullptr, *outputs = nullptr;
  StepTarget target;
  RouterProgram* programs = nullptr;  // [layers, max_routers]
  std::int32_t *top_tokens = nullptr, *expert_ids = nullptr;
  float *top_log_probabilities = nullptr, *expert_weights = nullptr;
  std::uint64_t* expert_rows = nullptr;
  RouterCounters* counters = nullptr;
  RouterProgram* shadow_programs = nullptr;  // [layers, max_routers]
  RouteAgreement* agreements = nullptr;
  std::int32_t* shadow_rows = nullptr;

  const StepPlan* plan = nullptr;
  WrittenStep step;
  StepBounds bounds;
  bool counts = false;       // the counters are copied
  std::int64_t routers = 0;  // slots of them
  StepShadows shadows;
  ForwardShadows asked;
  absl::Status status;
};

class CudaModel final : public Model {
 public:
  static absl::StatusOr<std::unique_ptr<Model>> Create(DeviceWeights weights,
                                                       const CudaModelOptions& options);
  ~CudaModel() override;

  const ModelSpec& spec() const override { return spec_; }
  int max_in_flight() const override { return kInFlight; }

  void Submit(const StepPlan& plan) override;
  absl::StatusOr<StepResult> Await() override;

 private:
  CudaModel(DeviceWeights weights, const CudaModelOptions& options)
      : weights_(std::move(weights)), config_(weights_.config()), options_(options) {}

  // cuda_model_setup.cc
  absl::Status Prepare();
  absl::Status MakeCache();
  absl::Status MakeFlights();
  absl::Status CaptureGraphs();
  absl::Status Warm(const StepBounds& bounds);
  ModelSpec Spec() const;

  // cuda_model.cc
  absl::Status Start(const StepPlan& plan, Flight& flight);
  absl::Status CopyIn(Flight& flight);
  absl::Status CopyOut(Flight& flight);
  absl::Status CopyCounts(Flight& flight);
  // cuda_model_shadows.cc
  absl::Status PrepareShadows(Flight& flight);
  absl::Status CopyShadowsOut(Flight& flight);
  absl::Status ReadShadowsOf(const Flight& flight, StepResult& result) const;

  // Rows of the largest graph.
  std::int64_t LargestBucket() const {
    return std::min<std::int64_t>(BucketOf(options_.max_batch), kLargestGraph);
  }
  absl::Status Copy(void* to, const void* from, std::int64_t bytes) const;
  absl::Status Copy(void* to, std::int64_t to_pitch, const void* from, std::int64_t from_pitch,
                    std::int64_t width, std::int64_t height) const;

  const DeviceWeights weights_;
  const ModelConfig& config_;
  const CudaModelOptions options_;
  ModelSpec spec_;
  CudaStream stream_ = nullptr;
  std::optional<CudaForward> forward_;
  DeviceBuffer cache_;
  std::int64_t num_blocks_ = 0;
  std::optional<RouterSlots> routers_, asked_routers_;
  std::optional<StepWriter> writer_;
  std::optional<StepReader> reader_;
  std::map<std::int64_t, CUgraphExec_st*> graphs_;  // by rows
  std::array<Flight, kInFlight> flights_;
  std::deque<Flight*> in_flight_;  // oldest first
  std::size_t turn_ = 0;
  bool told_of_turns_ = false;  // that shadow routing leaves routers out of a step
  absl::Status lost_;
};

}  // namespace penstock
