// Time of a step on the GPU alone, run back to back, with no engine and no copies around it.
//   cuda_step_bench CONFIG_FOLDER CONTEXT STEP…
// STEP: 16 is a decode step of 16 sequences at CONTEXT, as a graph, the mean over several draws of
// their tokens, and how many experts a layer they touched; 2048p is 2,048 rows of prompts of
// CONTEXT tokens each. Random weights, keys and values; the model's own gates as the router. 16@4
// has router program 4 of tests/bench/step_routers.h, 16@mixed has all of them in turn. 16+8 is a
// decode step of 16 with 8 rows of a text beside it, whose logits are all wanted: what paired
// scoring makes of a step; launched kernel by kernel, and 16+8g as a graph. A step's parts: run it
// under ncu.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "kernels/fill_normal.h"
#include "server/base/check.h"
#include "server/model/checkpoint/json_fields.h"
#include "server/model/cuda/cuda_forward.h"
#include "tests/bench/step_routers.h"

namespace penstock {
namespace {

constexpr int kRepeats = 30;
// Of tokens for a decode step: how many experts they touch is chance. Those of a batch are the same
// whatever its routers.
constexpr int kDraws = 24, kLaunches = 3;

template <typename T>
T Must(absl::StatusOr<T> value) {
  PENSTOCK_CHECK(value.ok()) << value.status().ToString();
  return *std::move(value);
}

void Check(cudaError_t error) { PENSTOCK_CHECK(error == cudaSuccess) << cudaGetErrorString(error); }

class StepBench {
 public:
  StepBench(const DeviceWeights& weights, int context, int max_batch, int max_rows)
      : config_(weights.config()),
        context_(context),
        max_rows_(max_rows),
        forward_(Must(CudaForward::Create(weights, {.max_rows = max_rows,
                                                    .max_sequences = max_batch,
                                                    .max_context = context,
                                                    .max_routers = StepRouters::kPrograms,
                                                    .max_hidden = 256,
                                                    .max_top = 1,
                                                    .max_token_lists = 1}))) {
    Check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    const std::int64_t blocks = max_batch * forward_.max_blocks();
    cache_ = Must(
        DeviceBuffer::Create(blocks * forward_.BlockBytes(), "keys and values", "lower CONTEXT"));
    FillNormalCuda({.seed = 2, .values = cache_.start(), .count = cache_.bytes() / 2}, stream_);
    forward_.SetCache(cache_.start(), blocks);
    const std::vector<RouterProgram> programs = routers_.Make(config_);
    Check(cudaMemcpyAsync(forward_.programs(), programs.data(),
                          programs.size() * sizeof(RouterProgram), cudaMemcpyHostToDevice,
                          stream_));
    std::vector<std::int32_t> table(static_cast<std::size_t>(blocks));
    for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::int32_t>(i);
    std::shuffle(table.begin(), table.end(), random_);
    Check(cudaMemcpyAsync(forward_.block_tables(), table.data(),
                          table.size() * sizeof(std::int32_t), cudaMemcpyHostToDevice, stream_));
    Check(cudaStreamSynchronize(stream_));
  }

  // Median microseconds of a step over prompts.
  double Prefill(int rows, int router) {
    const int sequences = (rows + context_ - 1) / context_;
    return Launched({.rows = rows, .decode_rows = 0, .logit_rows = sequences}, router, 8);
  }

  // The same of a decode step beside a text, without a graph.
  double Mixed(int batch, int beside, int router) {
    return Launched({.rows = batch + beside, .decode_rows = batch, .logit_rows = batch + beside},
                    router, kRepeats);
  }

  // Distinct experts that a row of the last Decode was given, by layer and draw, on average.
  double experts() const { return experts_; }

  // The same of a decode step, with so many rows of a text beside it.
  double Decode(int batch, int beside, int router) {
    const StepBounds bounds{
        .rows = batch + beside, .decode_rows = batch, .logit_rows = batch + beside};
    WriteInputs(bounds, router);
    forward_.Enqueue(bounds, stream_);
    Check(cudaStreamSynchronize(stream_));
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    Check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    forward_.Enqueue(bounds, stream_);
    Check(cudaStreamEndCapture(stream_, &graph));
    Check(cudaGraphInstantiate(&executable, graph, 0));
    double sum = 0;
    experts_ = 0;
    random_.seed(static_cast<unsigned>(batch));
    for (int draw = 0; draw < kDraws; ++draw) {
      WriteInputs(bounds, router);
      std::vector<cudaEvent_t> events(kLaunches + 1);
      for (cudaEvent_t& event : events) Check(cudaEventCreate(&event));
      Check(cudaGraphLaunch(executable, stream_));
      Check(cudaEventRecord(events[0], stream_));
      for (int i = 0; i < kLaunches; ++i) {
        Check(cudaGraphLaunch(executable, stream_));
        Check(cudaEventRecord(events[static_cast<std::size_t>(i) + 1], stream_));
      }
      sum += MedianBetween(events);
      experts_ += ExpertsALayer(bounds.rows) / kDraws;
    }
    Check(cudaGraphExecDestroy(executable));
    Check(cudaGraphDestroy(graph));
    return sum / kDraws;
  }

 private:
  double Launched(const StepBounds& bounds, int router, int repeats) {
    WriteInputs(bounds, router);
    std::vector<cudaEvent_t> events(static_cast<std::size_t>(repeats));
    for (cudaEvent_t& event : events) Check(cudaEventCreate(&event));
    for (cudaEvent_t& event : events) {
      forward_.Enqueue(bounds, stream_);
      Check(cudaEventRecord(event, stream_));
    }
    return MedianBetween(events);
  }

  double MedianBetween(const std::vector<cudaEvent_t>& events) {
    Check(cudaStreamSynchronize(stream_));
    std::vector<float> times(events.size() - 1);
    for (std::size_t i = 0; i < times.size(); ++i)
      Check(cudaEventElapsedTime(&times[i], events[i], events[i + 1]));
    for (cudaEvent_t event : events) Check(cudaEventDestroy(event));
    std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2),
                     times.end());
    return 1e3 * times[times.size() / 2];
  }

  // Of the step that ran last.
  double ExpertsALayer(std::int64_t rows) {
    const std::int64_t k = config_.top_k, stride = max_rows_ * k;
    std::vector<std::int32_t> ids(static_cast<std::size_t>(config_.layers * stride));
    Check(cudaMemcpy(ids.data(), forward_.expert_ids(), ids.size() * sizeof(std::int32_t),
                     cudaMemcpyDeviceToHost));
    std::size_t distinct = 0;
    for (std::int64_t layer = 0; layer < config_.layers; ++layer) {
      const std::int32_t* first = ids.data() + layer * stride;
      distinct += std::set<std::int32_t>(first, first + rows * k).size();
    }
    return static_cast<double>(distinct) / static_cast<double>(config_.layers);
  }

  // router: a program, or −1: all in turn.
  void WriteInputs(const StepBounds& bounds, int router) {
    Carver measure(nullptr);
    StepInputs::Lay(bounds, measure);
    void* memory = nullptr;
    Check(cudaMallocHost(&memory, static_cast<std::size_t>(measure.used())));
    Carver carver(static_cast<std::byte*>(memory));
    const StepInputs in = StepInputs::Lay(bounds, carver);
    in.counts[StepInputs::kNumRows] = static_cast<std::int32_t>(bounds.rows);
    in.counts[StepInputs::kNumDecodeRows] = static_cast<std::int32_t>(bounds.decode_rows);
    // The tables stand there already.
    in.counts[StepInputs::kNumSequences] = in.counts[StepInputs::kTableWidth] = 0;
    in.counts[StepInputs::kNumLogitRows] = static_cast<std::int32_t>(bounds.logit_rows);
    const bool some_decode = bounds.decode_rows > 0;
    for (int i = 0; i < bounds.rows; ++i) {
      const bool decodes = i < bounds.decode_rows;
      in.tokens[i] =
          static_cast<std::int32_t>(random_() % static_cast<std::uint64_t>(config_.vocab_size));
      // The text beside decode rows is one more sequence, in its second half.
      const int beside = context_ / 2 + i - static_cast<int>(bounds.decode_rows);
      in.positions[i] = decodes ? context_ - 1 : some_decode ? beside : i % context_;
      in.sequences[i] = decodes       ? i
                        : some_decode ? static_cast<std::int32_t>(bounds.decode_rows)
                                      : i / context_;
      in.row_routers[i] = router >= 0 ? router : i % StepRouters::kPrograms;
      in.counted[i] = 1;
    }
    for (int i = 0; i < bounds.logit_rows; ++i) {
      in.logit_rows[i] =
          some_decode ? i : std::min((i + 1) * context_, static_cast<int>(bounds.rows)) - 1;
      in.samples[i] = {};
      in.samples[i].temperature = 0;
    }
    Check(cudaMemcpyAsync(forward_.input_memory(), memory, static_cast<std::size_t>(measure.used()),
                          cudaMemcpyHostToDevice, stream_));
    Check(cudaStreamSynchronize(stream_));
    Check(cudaFreeHost(memory));
  }

  const ModelConfig& config_;
  const int context_, max_rows_;
  std::mt19937_64 random_{1};
  CudaForward forward_;
  double experts_ = 0;
  DeviceBuffer cache_;
  StepRouters routers_;
  cudaStream_t stream_ = nullptr;
};

int Main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: cuda_step_bench CONFIG_FOLDER CONTEXT STEP…\n");
    return 2;
  }
  const std::string file = std::string(argv[1]) + "/config.json";
  const ModelConfig config = Must(ParseModelConfig(Must(ReadTextFile(file, 1 << 20)), file));
  const DeviceWeights weights = Must(DeviceWeights::MakeRandom(config, 1));
  const int context = std::atoi(argv[2]);
  struct Wanted {
    int count = 0, beside = 0, router = 0;
    bool prompts = false, launched = false;
  };
  std::vector<Wanted> steps;
  int rows = 1, sequences = 1;
  for (int i = 3; i < argc; ++i) {
    const std::string text = argv[i];
    const std::size_t at = text.find('@');
    Wanted step;
    step.count = std::atoi(argv[i]);
    step.prompts = text.find('p') < at;
    if (at != std::string::npos) {
      step.router = text.substr(at + 1) == "mixed" ? -1 : std::atoi(text.c_str() + at + 1);
    }
    if (const std::size_t plus = text.find('+'); plus < at) {
      step.beside = std::atoi(text.c_str() + plus + 1);
      step.launched = text.find('g') >= at;
    }
    PENSTOCK_CHECK(step.beside < context / 2 && step.count > 0 &&
                   step.router < StepRouters::kPrograms)
        << text;
    rows = std::max(rows, step.count + step.beside);
    sequences =
        std::max(sequences, step.prompts ? (step.count + context - 1) / context : step.count + 1);
    steps.push_back(step);
  }
  StepBench bench(weights, context, sequences, rows);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const Wanted& step = steps[i];
    const bool decodes = !step.prompts && !step.launched;
    std::printf("%-10s %9.1f us a step", argv[i + 3],
                step.prompts    ? bench.Prefill(step.count, step.router)
                : step.launched ? bench.Mixed(step.count, step.beside, step.router)
                                : bench.Decode(step.count, step.beside, step.router));
    if (decodes) std::printf(", %.2f experts a layer", bench.experts());
    std::printf("\n");
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) { return penstock::Main(argc, argv); }
