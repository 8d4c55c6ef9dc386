// What a load generator sends, and when. Everything follows from the seed: two runs send the same.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "penstock/v1/inference.pb.h"

namespace penstock::client {

// SplitMix64 (Steele, Lea and Flood 2014, https://doi.org/10.1145/2660193.2660195): unlike the
// distributions of <random>, the same on every platform.
class SeededRandom {
 public:
  explicit SeededRandom(std::uint64_t seed) : state_(seed) {}

  std::uint64_t Next();
  double NextUnit();                                                // [0, 1)
  std::int64_t NextBetween(std::int64_t first, std::int64_t last);  // both included

 private:
  std::uint64_t state_;
};

// The arrivals of a Poisson process: gaps are exponential with mean 1/rate.
class PoissonArrivals {
 public:
  PoissonArrivals(double rate_per_second, std::uint64_t seed);

  // Since the start; never decreases.
  absl::Duration Next();

 private:
  const double rate_per_second_;
  SeededRandom random_;
  double seconds_ = 0;
};

// Deals out routers in proportion to their weights: after every whole round exactly so, and never
// more than one apart from it in between (smooth weighted round robin). Random draws would add
// noise to what is compared.
class RouterMix {
 public:
  // "control=1,a=2"; "control" alone weighs 1; "" is one nameless router, which the server assigns.
  // INVALID_ARGUMENT for a name twice or a weight that isn't positive.
  static absl::StatusOr<RouterMix> Parse(std::string_view text);

  RouterMix() : shares_(1) {}  // the nameless one

  const std::string& Next();
  std::vector<std::string> names() const;

 private:
  struct Share {
    std::string name;
    double weight = 1;
    double credit = 0;
  };
  std::vector<Share> shares_;
};

// A number of tokens: fixed, or uniform between two bounds, both included.
struct TokenLength {
  // "128" or "64-256". INVALID_ARGUMENT unless 1 ≤ first ≤ last ≤ 10⁷.
  static absl::StatusOr<TokenLength> Parse(std::string_view text);

  std::int64_t first = 1, last = 1;
};

struct WorkloadOptions {
  RouterMix mix;
  TokenLength prompt_tokens{128, 128};
  TokenLength output_tokens{64, 64};
  std::vector<std::string> prompts;  // if any: these texts in turn, instead of random tokens
  bool ignore_eos = true;            // every answer has exactly the wanted length
  double temperature = 0;
  std::int64_t users = 0;  // `unit.user` is one of "user-0", "user-1", …; 0: unset
  std::uint64_t seed = 1;
};

class Workload {
 public:
  Workload(WorkloadOptions options, const v1::GetModelInfoResponse& model);

  v1::GenerateRequest Next();

 private:
  std::int32_t NextToken();

  WorkloadOptions options_;
  const std::int32_t vocab_size_;
  const std::vector<std::int32_t> excluded_;  // the model's stop tokens
  SeededRandom random_;
  std::uint64_t sent_ = 0;
};

}  // namespace penstock::client
