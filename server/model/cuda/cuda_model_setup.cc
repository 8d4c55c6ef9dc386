// How the GPU backend gets ready: memory for activations, cache and steps in flight, and a graph
// for each number of decode rows.
#include <cuda_runtime_api.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "c10/util/Exception.h"
#include "server/base/status_macros.h"
#include "server/model/cuda/cuda_model_state.h"
#include "server/model/cuda/step/router_limits.h"

namespace penstock {
namespace {

// Left free for cuBLAS workspaces, routers that are loaded later, and the driver.
constexpr std::int64_t kReserveBytes = std::int64_t{1} << 30;

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> CudaModel::Create(DeviceWeights weights,
                                                         const CudaModelOptions& options) {
  auto model = std::unique_ptr<CudaModel>(new CudaModel(std::move(weights), options));
  PENSTOCK_RETURN_IF_ERROR(model->Prepare());
  return model;
}

CudaModel::~CudaModel() {
  if (stream_ != nullptr) cudaStreamSynchronize(stream_);
  for (const auto& [bucket, graph] : graphs_) cudaGraphExecDestroy(graph);
  for (const Flight& flight : flights_) {
    if (flight.done != nullptr) cudaEventDestroy(flight.done);
    for (CUevent_st* event : flight.asked.events) cudaEventDestroy(event);
  }
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

absl::Status CudaModel::Prepare() {
  PENSTOCK_RETURN_IF_ERROR(
      CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream"));
  const CudaForwardOptions forward{
      .max_rows = std::max<std::int64_t>(options_.max_step_rows, LargestBucket()),
      .max_sequences = BucketOf(options_.max_batch),
      .max_context = options_.max_context,
      .block_tokens = options_.block_tokens,
      .max_routers = options_.max_routers,
      .max_hidden = kMaxHidden,
      .max_top = kMaxTop,
      .max_token_lists = kMaxTokenLists,
      .telemetry = options_.telemetry};
  PENSTOCK_ASSIGN_OR_RETURN(forward_, CudaForward::Create(weights_, forward));
  PENSTOCK_RETURN_IF_ERROR(MakeCache());
  spec_ = Spec();
  routers_.emplace(config_.layers, options_.max_routers);
  asked_routers_.emplace(config_.layers, options_.max_routers);
  writer_.emplace(StepWriterOptions{.vocab_size = spec_.vocab_size,
                                    .block_tokens = spec_.block_tokens,
                                    .max_context = spec_.max_context,
                                    .max_sequences = static_cast<int>(forward.max_sequences),
                                    .max_top = static_cast<int>(kMaxTop),
                                    .max_token_lists = static_cast<int>(kMaxTokenLists),
                                    .num_blocks = num_blocks_},
                  &*routers_);
  int device = 0, processors = 1;
  PENSTOCK_RETURN_IF_ERROR(CudaStatus(cudaGetDevice(&device), "choosing a device"));
  PENSTOCK_RETURN_IF_ERROR(
      CudaStatus(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device),
                 "asking the device"));
  reader_.emplace(spec_, options_.max_routers, processors, options_.telemetry);
  PENSTOCK_RETURN_IF_ERROR(MakeFlights());
  try {
    return CaptureGraphs();
  } catch (const c10::Error& error) {
    return absl::InternalError(absl::StrCat("LibTorch: ", error.what_without_backtrace()));
  }
}

absl::Status CudaModel::MakeCache() {
  const std::int64_t block_bytes = forward_->BlockBytes();
  const std::int64_t wanted = options_.max_batch * forward_->max_blocks();
  std::size_t free = 0, total = 0;
  PENSTOCK_RETURN_IF_ERROR(CudaStatus(cudaMemGetInfo(&free, &total), "asking for free memory"));
  const std::int64_t spare =
      std::max<std::int64_t>(0, static_cast<std::int64_t>(free) - kReserveBytes);
  num_blocks_ = std::min(wanted, options_.kv_bytes.value_or(spare) / block_bytes);
  if (num_blocks_ < forward_->max_blocks()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("engine.kv_memory: the GPU has ", free, " bytes free, of which ",
                     options_.kv_bytes.value_or(spare), " may hold keys and values: ",
                     num_blocks_ * options_.block_tokens, " tokens, less than one context of ",
                     options_.max_context, " (", forward_->max_blocks() * block_bytes,
                     " bytes): raise it, or lower engine.max_context or engine.prefill_chunk"));
  }
  PENSTOCK_ASSIGN_OR_RETURN(cache_, DeviceBuffer::Create(num_blocks_ * block_bytes, "the KV cache",
                                                         "lower engine.kv_memory"));
  // Blocks are read whole, past a sequence's end too: what stands there must be finite.
  PENSTOCK_RETURN_IF_ERROR(CudaStatus(
      cudaMemset(cache_.start(), 0, static_cast<std::size_t>(cache_.bytes())), "clearing memory"));
  forward_->SetCache(cache_.start(), num_blocks_);
  return absl::OkStatus();
}

absl::Status CudaModel::MakeFlights() {
  const std::int64_t rows = forward_->options().max_rows,
                     sequences = forward_->options().max_sequences;
  const StepBounds most{.rows = rows, .decode_rows = sequences, .logit_rows = rows};
  for (Flight& flight : flights_) {
    const auto lay = [&](Carver& carver) {
      Carver inputs(nullptr), outputs(nullptr);
      StepInputs::Lay(most, inputs);
      StepOutputs::Lay(most, outputs);
      flight.inputs =
          carver.Take<std::byte>(inputs.used() + 4 * sequences * forward_->max_blocks());
      flight.outputs = carver.Take<std::byte>(outputs.used());
      flight.target.bias_tokens = carver.Take<std::int32_t>(kMaxTokenLists);
      flight.target.biases = carver.Take<float>(kMaxTokenLists);
      flight.target.banned = carver.Take<std::int32_t>(kMaxTokenLists);
      flight.programs = carver.Take<RouterProgram>(config_.layers * options_.max_routers);
      flight.top_tokens = carver.Take<std::int32_t>(rows * kMaxTop);
      flight.top_log_probabilities = carver.Take<float>(rows * kMaxTop);
      flight.expert_ids = carver.Take<std::int32_t>(config_.layers * rows * config_.top_k);
      flight.expert_weights = carver.Take<float>(config_.layers * rows * config_.top_k);
      flight.expert_rows =
          carver.Take<std::uint64_t>(config_.layers * options_.max_routers * config_.experts);
      flight.counters = carver.Take<RouterCounters>(config_.layers * options_.max_routers);
      constexpr std::int64_t kPairs = ShadowRouters::kMax * ShadowRouters::kMax;
      flight.shadow_programs = carver.Take<RouterProgram>(config_.layers * options_.max_routers);
      flight.agreements = carver.Take<RouteAgreement>(config_.layers * kPairs);
      flight.shadow_rows = carver.Take<std::int32_t>(config_.layers * kPairs * config_.experts);
    };
    Carver measure(nullptr);
    lay(measure);
    PENSTOCK_ASSIGN_OR_RETURN(flight.memory,
                              PinnedBuffer::Create(measure.used(), "a step's inputs and results"));
    Carver carver(flight.memory.start());
    lay(carver);
    PENSTOCK_RETURN_IF_ERROR(CudaStatus(
        cudaEventCreateWithFlags(&flight.done, cudaEventDisableTiming), "making an event"));
    for (std::int64_t i = 0; i < 2 * config_.layers; ++i) {
      PENSTOCK_RETURN_IF_ERROR(
          CudaStatus(cudaEventCreate(&flight.asked.events.emplace_back()), "making an event"));
    }
  }
  return absl::OkStatus();
}

// Runs a step of no rows: kernels are loaded, and workspaces taken, before a capture.
absl::Status CudaModel::Warm(const StepBounds& bounds) {
  Carver carver(forward_->input_memory());
  StepInputs::Lay(bounds, carver);
  PENSTOCK_RETURN_IF_ERROR(
      CudaStatus(cudaMemsetAsync(forward_->input_memory(), 0,
                                 static_cast<std::size_t>(carver.used()), stream_),
                 "warming up"));
  forward_->Enqueue(bounds, stream_);
  PENSTOCK_RETURN_IF_ERROR(CudaStatus(cudaGetLastError(), "warming up"));
  return CudaStatus(cudaStreamSynchronize(stream_), "warming up");
}

absl::Status CudaModel::CaptureGraphs() {
  const std::int64_t most = forward_->options().max_rows;
  PENSTOCK_RETURN_IF_ERROR(Warm({.rows = most, .decode_rows = 1, .logit_rows = 1}));
  for (std::int64_t bucket = 1; bucket <= LargestBucket(); bucket = BucketOf(bucket + 1)) {
    const StepBounds bounds{.rows = bucket, .decode_rows = bucket, .logit_rows = bucket};
    PENSTOCK_RETURN_IF_ERROR(Warm(bounds));
    cudaGraph_t graph = nullptr;
    PENSTOCK_RETURN_IF_ERROR(CudaStatus(
        cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "capturing a graph"));
    forward_->Enqueue(bounds, stream_);
    PENSTOCK_RETURN_IF_ERROR(
        CudaStatus(cudaStreamEndCapture(stream_, &graph), "capturing a graph"));
    cudaGraphExec_t& executable = graphs_[bucket];
    const cudaError_t made = cudaGraphInstantiate(&executable, graph, 0);
    cudaGraphDestroy(graph);
    PENSTOCK_RETURN_IF_ERROR(CudaStatus(made, "making a graph"));
    PENSTOCK_RETURN_IF_ERROR(CudaStatus(cudaGraphUpload(executable, stream_), "uploading a graph"));
  }
  return CudaStatus(cudaStreamSynchronize(stream_), "capturing graphs");
}

ModelSpec CudaModel::Spec() const {
  ModelSpec spec;
  spec.name = options_.name;
  spec.backend = "cuda";
  spec.dtype = "bfloat16";
  spec.num_layers = static_cast<int>(config_.layers);
  for (const std::int64_t layer : config_.SparseLayers())
    spec.sparse_layers.push_back(static_cast<int>(layer));
  spec.num_experts = static_cast<int>(config_.experts);
  spec.top_k = static_cast<int>(config_.top_k);
  spec.hidden_size = static_cast<int>(config_.hidden_size);
  spec.vocab_size = static_cast<int>(config_.vocab_size);
  spec.max_context = options_.max_context;
  spec.block_tokens = options_.block_tokens;
  spec.num_blocks = num_blocks_;
  spec.weight_bytes = weights_.bytes();
  spec.kv_bytes = cache_.bytes();
  spec.shadow_routing = true;
  return spec;
}

}  // namespace penstock
