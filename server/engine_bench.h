// Measures the engine by itself: no network, no tokenizer, random prompts.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/engine/engine.h"
#include "server/model/checkpoint/model_config.h"
#include "server/scheduler/loaded_router.h"

namespace penstock {

// `sequences` prompts at once, routers in turn.
struct BenchCase {
  enum class Kind {
    kDecode,   // the steps in which all of them decode, around position `prompt`
    kPrefill,  // from the first row to the last prompt's first token
    kMixed,    // from first to last token, prompts arriving as answers end
  };
  std::string name;
  Kind kind = Kind::kDecode;
  int sequences = 1;  // running at once
  int prompt = 512;   // tokens
  int output = 64;    // tokens
  int requests = 0;   // kMixed: in all
  std::vector<std::shared_ptr<const LoadedRouter>> routers;
  // Steps of a sample ask these what they would have decided.
  std::vector<std::shared_ptr<const LoadedRouter>> shadows = {};
  double shadow_share = 0;  // the sample's
};

struct BenchRow {
  BenchCase measured;
  int steps = 0;                 // that the figures are taken over
  double step_seconds = 0;       // median
  double tokens_per_second = 0;  // decoded or computed, by the kind
  double experts_per_layer = 0;  // distinct, as counted; 0: not counted
  double bytes = 0;              // that a decode step has to read; 0: not a decode step
  double floor_seconds = 0;      // bytes ÷ kFloorBandwidth; 0: not on a GPU
  double fraction = 0;           // of the floor's speed
  // Over the same steps, with shadow routing.
  double mean_step_seconds = 0;
  int shadowed_steps = 0;
  double shadow_seconds = 0;  // that it added, by the backend's clock
};

// Reading of 28 GiB on an H100 80 GB HBM3 (BENCHMARKS.md): what figures are held against.
inline constexpr double kFloorBandwidth = 3.12e12;

class EngineBench {
 public:
  struct Options {
    int max_batch = 256;
    int prefill_chunk = 2048;
    std::uint64_t seed = 1;  // of the prompts
  };

  // Takes the model; `config` is its shape.
  static absl::StatusOr<std::unique_ptr<EngineBench>> Create(std::unique_ptr<Model> model,
                                                             const ModelConfig& config,
                                                             const Options& options);
  ~EngineBench();

  const ModelSpec& spec() const;
  // The largest number of sequences of so many positions that the KV cache holds.
  int Fitting(int positions) const;
  // That the longest sequence of a case takes. Run is for those that spec().max_context covers.
  std::int64_t Positions(const BenchCase& bench_case) const;
  // Runs one case to its end.
  absl::StatusOr<BenchRow> Run(const BenchCase& bench_case);

 private:
  class State;
  explicit EngineBench(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace penstock
