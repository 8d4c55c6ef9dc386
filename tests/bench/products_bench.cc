// Times of the products that a decode step streams weights for, on Qwen1.5-MoE-A2.7B's shapes: all
// 24 layers' distinct weights in one CUDA graph, medians, beside the time that reading them takes.
// Usage: products_bench [rows…] [--floor-tbps=3.12]
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/bf16.h"
#include "kernels/dense_product.h"
#include "kernels/expert_products.h"
#include "tests/kernels/device_array.h"

namespace penstock {
namespace {

constexpr std::int64_t kLayers = 24, kD = 2048, kWidth = 1408, kExperts = 60, kShared = 4, kK = 4;
constexpr std::int64_t kMatrices = kExperts + kShared, kVocabulary = 151936, kQkv = 6144,
                       kMaxRows = 8192;

double g_bytes_per_us = 3.12e6;

// Random values over and over, the block of them shorter than no power of two: weights differ.
void FillRandom(const DeviceArray<std::uint16_t>& array) {
  static const DeviceArray<std::uint16_t>* block = [] {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<std::uint16_t> values((std::int64_t{1} << 22) - 1048);
    for (auto& value : values) value = Bf16OfFloat(normal(random) * 0.02f);
    return new DeviceArray<std::uint16_t>(values);
  }();
  for (std::int64_t at = 0; at < array.size(); at += block->size()) {
    const std::int64_t count = std::min(block->size(), array.size() - at);
    PENSTOCK_CHECK_CUDA(
        cudaMemcpy(array.get() + at, block->get(), count * 2, cudaMemcpyDeviceToDevice));
  }
}

struct Lists {
  std::vector<std::int32_t> offsets, slots;
  std::int64_t touched = kShared;  // experts with rows, the shared ones included
};

Lists RandomLists(std::int64_t rows, std::mt19937& random) {
  std::vector<std::vector<std::int32_t>> of(kExperts);
  for (std::int64_t row = 0; row < rows; ++row) {
    std::vector<int> all(kExperts);
    std::iota(all.begin(), all.end(), 0);
    std::shuffle(all.begin(), all.end(), random);
    for (int j = 0; j < kK; ++j) of[all[j]].push_back(static_cast<std::int32_t>(row * kK + j));
  }
  Lists lists;
  lists.offsets.push_back(0);
  for (const auto& slots : of) {
    lists.slots.insert(lists.slots.end(), slots.begin(), slots.end());
    lists.offsets.push_back(static_cast<std::int32_t>(lists.slots.size()));
    lists.touched += !slots.empty();
  }
  return lists;
}

// Median time of one launch of a graph that `body` is captured into, in µs.
double TimeGraph(cudaStream_t stream, const std::function<void()>& body) {
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  PENSTOCK_CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  body();
  PENSTOCK_CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
  PENSTOCK_CHECK_CUDA(cudaGraphInstantiate(&executable, graph, 0));
  cudaEvent_t start, stop;
  PENSTOCK_CHECK_CUDA(cudaEventCreate(&start));
  PENSTOCK_CHECK_CUDA(cudaEventCreate(&stop));
  std::vector<float> times;
  for (int i = 0; i < 13; ++i) {
    PENSTOCK_CHECK_CUDA(cudaEventRecord(start, stream));
    PENSTOCK_CHECK_CUDA(cudaGraphLaunch(executable, stream));
    PENSTOCK_CHECK_CUDA(cudaEventRecord(stop, stream));
    PENSTOCK_CHECK_CUDA(cudaEventSynchronize(stop));
    float ms;
    PENSTOCK_CHECK_CUDA(cudaEventElapsedTime(&ms, start, stop));
    if (i >= 2) times.push_back(ms);
  }
  PENSTOCK_CHECK_CUDA(cudaGraphExecDestroy(executable));
  PENSTOCK_CHECK_CUDA(cudaGraphDestroy(graph));
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2] * 1e3;
}

// `outputs` · kD products and sums a row, twice: what a rate is counted from.
void Show(std::int64_t rows, const char* what, double us, double bytes, double outputs) {
  const double floor = bytes / g_bytes_per_us, tflops = 2e-6 * outputs * kD * rows / us;
  std::printf("%4lld  %-8s %9.2f us, floor %8.2f us, %5.1f %%, %6.1f TFLOP/s\n",
              static_cast<long long>(rows), what, us, floor, 100 * floor / us, tflops);
  std::fflush(stdout);
}

class Bench {
 public:
  Bench()
      : gate_up_(kLayers * kMatrices * 2 * kWidth * kD),
        down_(kLayers * kMatrices * kD * kWidth),
        qkv_(kLayers * kQkv * kD),
        o_(kLayers * kD * kD),
        head_(kVocabulary * kD),
        x_(kMaxRows * kD),
        h_(kMaxRows * (kK + kShared) * kWidth),
        y_(kMaxRows * (kK + kShared) * kD),
        dense_(std::max(256 * kVocabulary, kMaxRows * kQkv)),
        tiles_(std::vector<std::int32_t>(kLayers * 2 * ExpertProductsArgs::kTileCounters, 0)),
        offsets_(kLayers * (kExperts + 1)),
        slots_(kLayers * kMaxRows * kK) {
    PENSTOCK_CHECK_CUDA(cudaStreamCreate(&stream_));
    for (const auto* array : {&gate_up_, &down_, &qkv_, &o_, &head_, &x_, &h_}) FillRandom(*array);
    gate_up_maps_.resize(kLayers);
    down_maps_.resize(kLayers);
    qkv_maps_.resize(kLayers);
    o_maps_.resize(kLayers);
    bool made = MakeTileMap(head_.get(), 1, kVocabulary, kD, &head_map_);
    for (std::int64_t l = 0; l < kLayers; ++l) {
      made = made &&
             MakeGatedTileMap(gate_up_.get() + l * kMatrices * 2 * kWidth * kD, kMatrices, kWidth,
                              kD, &gate_up_maps_[l]) &&
             MakeTileMap(down_.get() + l * kMatrices * kD * kWidth, kMatrices, kD, kWidth,
                         &down_maps_[l]) &&
             MakeTileMap(qkv_.get() + l * kQkv * kD, 1, kQkv, kD, &qkv_maps_[l]) &&
             MakeTileMap(o_.get() + l * kD * kD, 1, kD, kD, &o_maps_[l]);
    }
    if (!made) {
      std::fprintf(stderr, "the driver made no tensor maps\n");
      std::exit(1);
    }
  }

  void Run(std::int64_t rows) {
    std::mt19937 random(static_cast<unsigned>(rows));
    double touched = 0;
    for (std::int64_t l = 0; l < kLayers; ++l) {
      const Lists lists = RandomLists(rows, random);
      touched += static_cast<double>(lists.touched) / kLayers;
      PENSTOCK_CHECK_CUDA(cudaMemcpy(offsets_.get() + l * (kExperts + 1), lists.offsets.data(),
                                     lists.offsets.size() * 4, cudaMemcpyHostToDevice));
      PENSTOCK_CHECK_CUDA(cudaMemcpy(slots_.get() + l * kMaxRows * kK, lists.slots.data(),
                                     lists.slots.size() * 4, cudaMemcpyHostToDevice));
    }
    const auto per_layer = [&](auto launch) {
      return TimeGraph(stream_,
                       [&] {
                         for (std::int64_t l = 0; l < kLayers; ++l) launch(l);
                       }) /
             kLayers;
    };
    const double places = kK + kShared, gate_up = touched * 2 * kWidth * kD * 2,
                 down = touched * kWidth * kD * 2;
    Show(rows, "gate-up",
         per_layer([&](std::int64_t l) { ExpertGateUpCuda(Experts(l, rows), stream_); }), gate_up,
         places * 2 * kWidth);
    Show(rows, "down",
         per_layer([&](std::int64_t l) { ExpertDownCuda(Experts(l, rows), stream_); }), down,
         places * kWidth);
    Show(rows, "experts", per_layer([&](std::int64_t l) {
           ExpertGateUpCuda(Experts(l, rows), stream_);
           ExpertDownCuda(Experts(l, rows), stream_);
         }),
         gate_up + down, places * 3 * kWidth);
    Show(rows, "qkv", per_layer([&](std::int64_t l) {
           DenseProductCuda(Dense(rows, qkv_.get() + l * kQkv * kD, qkv_maps_[l], kQkv, 1),
                            stream_);
         }),
         2.0 * kQkv * kD, kQkv);
    Show(rows, "o", per_layer([&](std::int64_t l) {
           DenseProductCuda(Dense(rows, o_.get() + l * kD * kD, o_maps_[l], kD, 4), stream_);
         }),
         2.0 * kD * kD, kD);
    if (rows > 256) return;  // prefill: one row a sequence
    Show(rows, "lm_head",
         TimeGraph(stream_,
                   [&] {
                     for (int i = 0; i < 4; ++i)
                       DenseProductCuda(Dense(rows, head_.get(), head_map_, kVocabulary, 1),
                                        stream_);
                   }) /
             4,
         2.0 * kVocabulary * kD, kVocabulary);
  }

 private:
  ExpertProductsArgs Experts(std::int64_t l, std::int64_t rows) const {
    ExpertProductsArgs args;
    args.x = x_.get();
    args.gate_up = gate_up_.get() + l * kMatrices * 2 * kWidth * kD;
    args.down = down_.get() + l * kMatrices * kD * kWidth;
    args.gate_up_map = &gate_up_maps_[l];
    args.down_map = &down_maps_[l];
    args.expert_offsets = offsets_.get() + l * (kExperts + 1);
    args.slots = slots_.get() + l * kMaxRows * kK;
    args.h = h_.get();
    args.y = y_.get();
    args.gate_up_tiles = tiles_.get() + l * 2 * ExpertProductsArgs::kTileCounters;
    args.down_tiles = args.gate_up_tiles + ExpertProductsArgs::kTileCounters;
    args.rows = rows;
    args.d = kD;
    args.width = kWidth;
    args.experts = kExperts;
    args.shared = kShared;
    args.k = kK;
    return args;
  }

  DenseProductArgs Dense(std::int64_t rows, const std::uint16_t* weight, const TileMap& map,
                         std::int64_t m, std::int64_t splits) const {
    DenseProductArgs args;
    args.x = x_.get();
    args.weight = weight;
    args.weight_map = &map;
    args.rows = rows;
    args.n = kD;
    args.m = m;
    args.splits = splits;
    args.y_element = splits == 1 ? Element::kBF16 : Element::kF32;
    args.y = dense_.get();
    return args;
  }

  cudaStream_t stream_;
  DeviceArray<std::uint16_t> gate_up_, down_, qkv_, o_, head_, x_, h_, y_, dense_;
  DeviceArray<std::int32_t> tiles_, offsets_, slots_;
  std::vector<TileMap> gate_up_maps_, down_maps_, qkv_maps_, o_maps_;
  TileMap head_map_;
};

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  std::vector<std::int64_t> rows;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "--floor-tbps=", 13) == 0) {
      penstock::g_bytes_per_us = std::atof(argv[i] + 13) * 1e6;
    } else {
      rows.push_back(std::atoll(argv[i]));
    }
  }
  if (rows.empty()) rows = {1, 4, 16, 64, 128, 256};
  cudaDeviceProp properties;
  PENSTOCK_CHECK_CUDA(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s; µs for one layer; the floor is the weights' bytes at %.2f TB/s\n",
              properties.name, penstock::g_bytes_per_us / 1e6);
  penstock::Bench bench;
  for (const std::int64_t r : rows) {
    if (r < 1 || r > penstock::kMaxRows) {
      std::fprintf(stderr, "rows %lld: wanted 1 to %lld\n", static_cast<long long>(r),
                   static_cast<long long>(penstock::kMaxRows));
      return 1;
    }
    bench.Run(r);
  }
  return 0;
}
