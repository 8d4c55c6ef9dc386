#include "server/model/cuda/cuda_model.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <deque>
#include <filesystem>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "c10/util/Exception.h"
#include "routers/router.h"
#include "server/base/check.h"
#include "server/base/error.h"
#include "server/base/status_macros.h"
#include "server/model/cuda/cuda_forward.h"
#include "server/model/cuda/device_memory.h"
#include "server/model/cuda/device_weights.h"
#include "server/model/cuda/step/router_slots.h"
#include "server/model/cuda/step/step_reader.h"
#include "server/model/cuda/step/step_writer.h"

namespace penstock {
namespace {

constexpr int kInFlight = 2;
constexpr std::int64_t kMaxHidden = 1024;      // widest hidden layer of a router
constexpr std::int64_t kMaxStepRows = 16384;   // of the routing kernels
constexpr std::int64_t kMaxTop = 64;           // alternatives beside a scored token
constexpr std::int64_t kMaxTokenLists = 32768;  // logit_bias entries, and banned tokens, of a step
constexpr std::int64_t kLargestGraph = 256;    // rows of a decode step that runs as a graph
// The counters of routing decisions are copied after two neighbouring steps of so many, and when no step is in flight: the
// second of the two tells of one step alone.
constexpr std::uint64_t kCountInterval = 16;
// Left free for cuBLAS workspaces, routers that are loaded later, and the driver.
constexpr std::int64_t kReserveBytes = std::int64_t{1} << 30;

// The smallest bucket that holds so many rows: 1, 2, 4, 8, 16, 24, …
std::int64_t BucketOf(std::int64_t rows) {
  for (const std::int64_t small : {1, 2, 4}) {
    if (rows <= small) return small;
  }
  return (rows + 7) / 8 * 8;
}

// One of the steps in flight: its host memory, and what it was asked.
struct Flight {
  PinnedBuffer memory;
  cudaEvent_t done = nullptr;
  // Host memory of `memory`.
  std::byte *inputs = nullptr, *outputs = nullptr;
  StepTarget target;
  RouterProgram* programs = nullptr;  // [layers, max_routers]
  std::int32_t *top_tokens = nullptr, *expert_ids = nullptr;
  float *top_log_probabilities = nullptr, *expert_weights = nullptr;
  std::uint64_t* expert_rows = nullptr;
  RouterCounters* counters = nullptr;

  const StepPlan* plan = nullptr;
  WrittenStep step;
  StepBounds bounds;
  bool counts = false;       // the counters are copied
  std::int64_t routers = 0;  // slots of them
  absl::Status status;
};

class CudaModel final : public Model {
 public:
  static absl::StatusOr<std::unique_ptr<Model>> Create(DeviceWeights weights, const CudaModelOptions& options) {
    auto model = std::unique_ptr<CudaModel>(new CudaModel(std::move(weights), options));
    PENSTOCK_RETURN_IF_ERROR(model->Prepare());
    return model;
  }

  ~CudaModel() override {
    if (stream_ != nullptr) cudaStreamSynchronize(stream_);
    for (const auto& [bucket, graph] : graphs_) cudaGraphExecDestroy(graph);
    for (const Flight& flight : flights_) {
      if (flight.done != nullptr) cudaEventDestroy(flight.done);
    }
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  const ModelSpec& spec() const override { return spec_; }
  int max_in_flight() const override { return kInFlight; }

  void Submit(const StepPlan& plan) override {
    PENSTOCK_CHECK_LT(in_flight_.size(), static_cast<std::size_t>(kInFlight)) << "step " << plan.number;
    Flight& flight = flights_[turn_++ % kInFlight];
    flight.plan = &plan;
    in_flight_.push_back(&flight);
    try {
      flight.status = lost_.ok() ? Start(plan, flight) : lost_;
    } catch (const c10::Error& error) {
      flight.status = absl::UnavailableError(absl::StrCat("LibTorch: ", error.what_without_backtrace()));
    }
  }

  absl::StatusOr<StepResult> Await() override {
    PENSTOCK_CHECK(!in_flight_.empty()) << "no step was submitted";
    Flight& flight = *in_flight_.front();
    in_flight_.pop_front();
    const StepPlan& plan = *std::exchange(flight.plan, nullptr);
    if (flight.status.ok()) {
      flight.status = CudaStatus(cudaEventSynchronize(flight.done), absl::StrCat("running step ", plan.number));
    }
    if (!flight.status.ok()) {
      if (absl::IsUnavailable(flight.status)) lost_ = flight.status;
      return flight.status;
    }
    if (options_.telemetry && !flight.counts && in_flight_.empty()) {
      flight.status = CopyCounts(flight);
      if (flight.status.ok()) flight.status = CudaStatus(cudaStreamSynchronize(stream_), "reading counters");
      if (!flight.status.ok()) return lost_ = flight.status;
    }
    // A slot goes to another router when its counts are read, not before.
    if (flight.counts || !options_.telemetry) routers_->Release(plan.number);
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
    return reader_->Read(plan, flight.step, answers);
  }

 private:
  CudaModel(DeviceWeights weights, const CudaModelOptions& options)
      : weights_(std::move(weights)), config_(weights_.config()), options_(options) {}

  absl::Status Prepare();
  absl::Status MakeCache();
  absl::Status MakeFlights();
  absl::Status CaptureGraphs();
  absl::Status Warm(const StepBounds& bounds);
  absl::Status Start(const StepPlan& plan, Flight& flight);
  absl::Status CopyIn(Flight& flight);
  absl::Status CopyOut(Flight& flight);
  absl::Status CopyCounts(Flight& flight);
  ModelSpec Spec() const;

  // Rows of the largest graph.
  std::int64_t LargestBucket() const { return std::min<std::int64_t>(BucketOf(options_.max_batch), kLargestGraph); }
  absl::Status Copy(void* to, const void* from, std::int64_t bytes) {
    return CudaStatus(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, stream_),
                      "copying a step");
  }
  absl::Status Copy(void* to, std::int64_t to_pitch, const void* from, std::int64_t from_pitch, std::int64_t width,
                    std::int64_t height) {
    return CudaStatus(
        cudaMemcpy2DAsync(to, static_cast<std::size_t>(to_pitch), from, static_cast<std::size_t>(from_pitch),
                          static_cast<std::size_t>(width), static_cast<std::size_t>(height), cudaMemcpyDefault, stream_),
        "copying a step");
  }

  const DeviceWeights weights_;
  const ModelConfig& config_;
  const CudaModelOptions options_;
  ModelSpec spec_;
  cudaStream_t stream_ = nullptr;
  std::optional<CudaForward> forward_;
  DeviceBuffer cache_;
  std::int64_t num_blocks_ = 0;
  std::optional<RouterSlots> routers_;
  std::optional<StepWriter> writer_;
  std::optional<StepReader> reader_;
  std::map<std::int64_t, cudaGraphExec_t> graphs_;  // by rows
  std::array<Flight, kInFlight> flights_;
  std::deque<Flight*> in_flight_;  // oldest first
  std::size_t turn_ = 0;
  absl::Status lost_;
};

absl::Status CudaModel::Prepare() {
  PENSTOCK_RETURN_IF_ERROR(
      CudaStatus(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream"));
  const CudaForwardOptions forward{.max_rows = std::max<std::int64_t>(options_.max_step_rows, LargestBucket()),
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
      CudaStatus(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), "asking the device"));
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
  const std::int64_t spare = std::max<std::int64_t>(0, static_cast<std::int64_t>(free) - kReserveBytes);
  num_blocks_ = std::min(wanted, options_.kv_bytes.value_or(spare) / block_bytes);
  if (num_blocks_ < forward_->max_blocks()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "engine.kv_memory: the GPU has ", free, " bytes free, of which ", options_.kv_bytes.value_or(spare),
        " may hold keys and values: ", num_blocks_ * options_.block_tokens, " tokens, less than one context of ",
        options_.max_context, " (", forward_->max_blocks() * block_bytes,
        " bytes): raise it, or lower engine.max_context or engine.prefill_chunk"));
  }
  PENSTOCK_ASSIGN_OR_RETURN(cache_, DeviceBuffer::Create(num_blocks_ * block_bytes, "the KV cache",
                                                         "lower engine.kv_memory"));
  // Blocks are read whole, past a sequence's end too: what stands there must be finite.
  PENSTOCK_RETURN_IF_ERROR(
      CudaStatus(cudaMemset(cache_.start(), 0, static_cast<std::size_t>(cache_.bytes())), "clearing memory"));
  forward_->SetCache(cache_.start(), num_blocks_);
  return absl::OkStatus();
}

absl::Status CudaModel::MakeFlights() {
  const std::int64_t rows = forward_->options().max_rows, sequences = forward_->options().max_sequences;
  const StepBounds most{.rows = rows, .decode_rows = sequences, .logit_rows = rows};
  for (Flight& flight : flights_) {
    const auto lay = [&](Carver& carver) {
      Carver inputs(nullptr), outputs(nullptr);
      StepInputs::Lay(most, inputs);
      StepOutputs::Lay(most, outputs);
      flight.inputs = carver.Take<std::byte>(inputs.used() + 4 * sequences * forward_->max_blocks());
      flight.outputs = carver.Take<std::byte>(outputs.used());
      flight.target.bias_tokens = carver.Take<std::int32_t>(kMaxTokenLists);
      flight.target.biases = carver.Take<float>(kMaxTokenLists);
      flight.target.banned = carver.Take<std::int32_t>(kMaxTokenLists);
      flight.programs = carver.Take<RouterProgram>(config_.layers * options_.max_routers);
      flight.top_tokens = carver.Take<std::int32_t>(rows * kMaxTop);
      flight.top_log_probabilities = carver.Take<float>(rows * kMaxTop);
      flight.expert_ids = carver.Take<std::int32_t>(config_.layers * rows * config_.top_k);
      flight.expert_weights = carver.Take<float>(config_.layers * rows * config_.top_k);
      flight.expert_rows = carver.Take<std::uint64_t>(config_.layers * options_.max_routers * config_.experts);
      flight.counters = carver.Take<RouterCounters>(config_.layers * options_.max_routers);
    };
    Carver measure(nullptr);
    lay(measure);
    PENSTOCK_ASSIGN_OR_RETURN(flight.memory, PinnedBuffer::Create(measure.used(), "a step's inputs and results"));
    Carver carver(flight.memory.start());
    lay(carver);
    PENSTOCK_RETURN_IF_ERROR(
        CudaStatus(cudaEventCreateWithFlags(&flight.done, cudaEventDisableTiming), "making an event"));
  }
  return absl::OkStatus();
}

// Runs a step of no rows: kernels are loaded, and workspaces taken, before a capture.
absl::Status CudaModel::Warm(const StepBounds& bounds) {
  Carver carver(forward_->input_memory());
  StepInputs::Lay(bounds, carver);
  PENSTOCK_RETURN_IF_ERROR(CudaStatus(
      cudaMemsetAsync(forward_->input_memory(), 0, static_cast<std::size_t>(carver.used()), stream_), "warming up"));
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
    PENSTOCK_RETURN_IF_ERROR(
        CudaStatus(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "capturing a graph"));
    forward_->Enqueue(bounds, stream_);
    PENSTOCK_RETURN_IF_ERROR(CudaStatus(cudaStreamEndCapture(stream_, &graph), "capturing a graph"));
    cudaGraphExec_t& executable = graphs_[bucket];
    const cudaError_t made = cudaGraphInstantiate(&executable, graph, 0);
    cudaGraphDestroy(graph);
    PENSTOCK_RETURN_IF_ERROR(CudaStatus(made, "making a graph"));
    PENSTOCK_RETURN_IF_ERROR(CudaStatus(cudaGraphUpload(executable, stream_), "uploading a graph"));
  }
  return CudaStatus(cudaStreamSynchronize(stream_), "capturing graphs");
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
  if (graphed) {
    PENSTOCK_RETURN_IF_ERROR(CudaStatus(cudaGraphLaunch(graphs_.at(flight.bounds.rows), stream_), "starting a step"));
  } else {
    forward_->Enqueue(flight.bounds, stream_);
    PENSTOCK_RETURN_IF_ERROR(CudaStatus(cudaGetLastError(), "starting a step"));
  }
  PENSTOCK_RETURN_IF_ERROR(CopyOut(flight));
  return CudaStatus(cudaEventRecord(flight.done, stream_), "starting a step");
}

// All but the arrays of the step itself.
absl::Status CudaModel::CopyIn(Flight& flight) {
  const WrittenStep& step = flight.step;
  if (routers_->TakeChanged()) {
    const std::vector<RouterProgram>& programs = routers_->programs();
    std::copy(programs.begin(), programs.end(), flight.programs);
    PENSTOCK_RETURN_IF_ERROR(Copy(forward_->programs(), flight.programs,
                                  static_cast<std::int64_t>(programs.size() * sizeof(RouterProgram))));
  }
  if (step.list_entries > 0) {
    PENSTOCK_RETURN_IF_ERROR(Copy(forward_->bias_tokens(), flight.target.bias_tokens, 4 * step.list_entries));
    PENSTOCK_RETURN_IF_ERROR(Copy(forward_->biases(), flight.target.biases, 4 * step.list_entries));
    PENSTOCK_RETURN_IF_ERROR(Copy(forward_->banned(), flight.target.banned, 4 * step.list_entries));
  }
  for (const auto& [slot, tokens] : step.histories) {
    PENSTOCK_RETURN_IF_ERROR(Copy(forward_->histories() + slot * forward_->history_stride(), tokens.data(),
                                  4 * static_cast<std::int64_t>(tokens.size())));
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
    PENSTOCK_RETURN_IF_ERROR(Copy(flight.top_log_probabilities, forward_->top_log_probabilities(), bytes));
  }
  if (flight.step.wants_traces) {
    const std::int64_t width = 4 * flight.plan->rows() * config_.top_k,
                       pitch = 4 * forward_->options().max_rows * config_.top_k;
    PENSTOCK_RETURN_IF_ERROR(
        Copy(flight.expert_ids, width, forward_->expert_ids(), pitch, width, config_.layers));
    PENSTOCK_RETURN_IF_ERROR(
        Copy(flight.expert_weights, width, forward_->expert_weights(), pitch, width, config_.layers));
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
                                size * options_.max_routers, size * flight.routers, config_.layers));
  const std::int64_t row = 8 * config_.experts;
  return Copy(flight.expert_rows, row * flight.routers, forward_->expert_rows(), row * options_.max_routers,
              row * flight.routers, config_.layers);
}

ModelSpec CudaModel::Spec() const {
  ModelSpec spec;
  spec.name = options_.name;
  spec.backend = "cuda";
  spec.dtype = "bfloat16";
  spec.num_layers = static_cast<int>(config_.layers);
  for (const std::int64_t layer : config_.SparseLayers()) spec.sparse_layers.push_back(static_cast<int>(layer));
  spec.num_experts = static_cast<int>(config_.experts);
  spec.top_k = static_cast<int>(config_.top_k);
  spec.hidden_size = static_cast<int>(config_.hidden_size);
  spec.vocab_size = static_cast<int>(config_.vocab_size);
  spec.max_context = options_.max_context;
  spec.block_tokens = options_.block_tokens;
  spec.num_blocks = num_blocks_;
  spec.weight_bytes = weights_.bytes();
  spec.kv_bytes = cache_.bytes();
  return spec;
}

}  // namespace

absl::Status CheckCudaModel(const ModelConfig& config, const std::string& dtype, const CudaModelOptions& options) {
  if (dtype != "auto" && dtype != "bfloat16") {
    return InvalidField("model.dtype", dtype, "auto or bfloat16 on a GPU");
  }
  if (dtype == "auto" && config.dtype.has_value() && *config.dtype != DType::kBF16) {
    return InvalidField("model.dtype", "auto, and the checkpoint is not in bfloat16", "bfloat16 on a GPU");
  }
  if (options.block_tokens != 16) {
    return InvalidField("engine.block_tokens", absl::StrCat(options.block_tokens), "16 on a GPU");
  }
  if (options.max_context < 1 || options.max_context > config.max_position_embeddings) {
    return InvalidField(
        "engine.max_context", absl::StrCat(options.max_context),
        absl::StrCat("1 to the model's max_position_embeddings, ", config.max_position_embeddings));
  }
  if (options.max_step_rows < options.max_batch) {
    return InvalidField("engine.prefill_chunk", absl::StrCat(options.max_step_rows), "at least max_batch in all");
  }
  if (options.max_step_rows > kMaxStepRows) {
    return InvalidField("engine.prefill_chunk", absl::StrCat(options.max_step_rows - options.max_batch),
                        absl::StrCat("at most ", kMaxStepRows - options.max_batch, " on a GPU"));
  }
  return DeviceWeights::CheckShape(config);
}

absl::Status CheckCudaRouter(const Router& router) {
  const std::optional<RouterProgram> program = router.Program(0);
  if (!program) {
    return absl::InvalidArgumentError(
        absl::StrCat("kind ", router.spec().kind().name,
                     ": no program of the GPU engine computes this router; widths must be multiples of 8"));
  }
  if (program->hidden > kMaxHidden) {
    return absl::InvalidArgumentError(absl::StrCat("kind ", router.spec().kind().name, ": got a hidden width of ",
                                                   program->hidden, ", want at most ", kMaxHidden, " on a GPU"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Model>> CreateCudaModel(const Checkpoint& checkpoint, const CudaModelOptions& options) {
  PENSTOCK_ASSIGN_OR_RETURN(DeviceWeights weights, DeviceWeights::Load(checkpoint, options.progress));
  return CudaModel::Create(std::move(weights), options);
}

absl::StatusOr<std::unique_ptr<Model>> CreateDummyCudaModel(const ModelConfig& config,
                                                            const CudaModelOptions& options) {
  PENSTOCK_ASSIGN_OR_RETURN(DeviceWeights weights, DeviceWeights::MakeRandom(config, options.dummy_seed));
  return CudaModel::Create(std::move(weights), options);
}

}  // namespace penstock
